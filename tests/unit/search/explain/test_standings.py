"""The leaderboard: order, margins, and distances on common folds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raywf.core.records import Member, Sweep, Trial
from raywf.search.explain.standings import fold_margin, rank_trials


def trial(name: str, losses: tuple[float, ...], status: str = "done") -> Trial:
    score = -float(np.mean(losses)) if losses else None
    return Trial(id=name, family="linear", params={}, status=status, fold_losses=losses, score=score)


def sweep(*trials: Trial) -> Sweep:
    member = Member(trial_id="a", family="linear", params={}, rounds=0, weight=1.0)
    return Sweep(
        id="s",
        snapshot_id="x",
        metric="roc_auc",
        greater_is_better=True,
        trials=trials,
        members=(member,),
        score=0.5,
        calibrated=False,
        budget_s=1,
        spent_s=1,
        cpu_s=1,
    )


BEST, NEXT = trial("a", (-0.9, -0.8, -0.7)), trial("b", (-0.85, -0.7, -0.72))
LUCKY = trial("c", (-0.95,), "stopped")
FAILED = trial("d", (), "failed")


def test_finished_trials_lead() -> None:
    """Then stopped ones, however lucky their few folds, then failed ones."""
    found = rank_trials(sweep(FAILED, LUCKY, NEXT, BEST))
    assert [s.trial_id for s in found] == ["a", "b", "c", "d"]
    assert [s.weight for s in found] == [1.0, 0.0, 0.0, 0.0]


def test_distance_is_paired() -> None:
    """The mean over common folds, with the margin of the differences; none for the best itself."""
    best, other, lucky, failed = rank_trials(sweep(BEST, NEXT, LUCKY, FAILED))
    apart = np.subtract(NEXT.fold_losses, BEST.fold_losses)
    assert (best.behind, best.behind_margin) == (0, None)
    assert other.behind == pytest.approx(apart.mean())
    assert other.behind_margin == pytest.approx(fold_margin(list(apart)))
    assert (lucky.behind, lucky.behind_margin) == (pytest.approx(-0.05), None)
    assert (failed.score, failed.margin, failed.behind) == (None, None, None)


@pytest.mark.parametrize(("count", "share"), [(3, 1 / 2), (8, 1 / 7), (16, 1 / 7)])
def test_margin_is_of_student_with_the_corrected_variance(count: int, share: float) -> None:
    """Repeats of eight folds score a seventh of what they fit."""
    losses = np.random.default_rng(count).normal(size=count)
    error = losses.std(ddof=1) * np.sqrt(1 / count + share)
    assert fold_margin(list(losses)) == pytest.approx(stats.t.ppf(0.975, count - 1) * error)
    assert fold_margin([0.3]) is None


def test_sweep_without_a_finished_trial() -> None:
    """Nothing to lie behind of."""
    assert [s.behind for s in rank_trials(sweep(LUCKY, FAILED))] == [None, None]
