"""The leaderboard: each trial's score with an interval, and how far it lies behind the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from raywf.core.explanation import Standing
from raywf.core.records import Sweep, Trial
from raywf.search.data import REPEATED

_COVER = 0.95


def rank_trials(sweep: Sweep) -> tuple[Standing, ...]:
    """Return the trials, finished ones first, the best of them leading."""
    weights = {m.trial_id: m.weight for m in sweep.members}
    best = min((t for t in sweep.trials if t.status == "done"), key=_mean, default=None)
    made = [
        _standing(t, best, weights.get(t.id, 0.0), is_slow=t.id in sweep.passed_over)
        for t in sorted(sweep.trials, key=_mean)
    ]
    return tuple(sorted(made, key=lambda s: _place(s, best)))


def fold_margin(losses: Sequence[float]) -> float | None:
    """Return half of the 95 % interval of the mean over the folds; None with one fold.

    Fits of different folds share most of their rows, so the variance is raised by the ratio of scored to
    fitted rows (Nadeau and Bengio, Machine Learning 2003).

    >>> round(fold_margin([0.1, 0.2, 0.3, 0.4]), 3)
    0.314
    """
    count = len(losses)
    if count < 2:
        return None
    each = REPEATED if count % REPEATED == 0 else count
    variance = float(np.var(losses, ddof=1)) * (1 / count + 1 / (each - 1))
    return float(stdtrit(count - 1, (1 + _COVER) / 2) * np.sqrt(variance))


def _mean(trial: Trial) -> float:
    return float(np.mean(trial.fold_losses)) if trial.fold_losses else float("inf")


def _standing(trial: Trial, best: Trial | None, weight: float, *, is_slow: bool) -> Standing:
    theirs = best.fold_losses if best is not None else ()
    apart = [mine - other for mine, other in zip(trial.fold_losses, theirs, strict=False)]
    is_best = best is not None and trial.id == best.id
    return Standing(
        trial_id=trial.id,
        family=trial.family,
        status=trial.status,
        folds=len(trial.fold_losses),
        score=trial.score,
        margin=fold_margin(trial.fold_losses),
        behind=float(np.mean(apart)) if apart else None,
        behind_margin=None if is_best else fold_margin(apart),
        weight=weight,
        row_us=trial.row_us,
        seconds=trial.seconds,
        is_slow=is_slow,
    )


def _place(standing: Standing, best: Trial | None) -> tuple[bool, float]:
    """Order by the paired distance: a stopped trial's own mean is of fewer folds than the others'."""
    first = best is not None and standing.trial_id == best.id
    behind = float("inf") if standing.behind is None else standing.behind
    return standing.status != "done", -float("inf") if first else behind
