"""How long fits take on these rows: a short measurement, and what follows from it for folds and order."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raywf.core.metrics import log_loss, rmse
from raywf.core.niceness import yield_cpu
from raywf.core.records import Trial
from raywf.models.families import family, is_family, traits
from raywf.models.family import Problem, Rows
from raywf.search.budget import WORKER_S

PROBE_RATE, PROBE_LEAVES = 0.1, 50
_LOSSES = {"binary": log_loss, "multiclass": log_loss, "regression": rmse}
PROBE_ROWS = 40_000
_RANDOM_ROUNDS = 3.0  # of trees with random thresholds, which learn less each
_WIDE, _WIDE_BOUNDS = 2.0, (1.0, 4.0)  # of trees that read pairs of numbers besides, which are found first
_CROWDED = 2.5  # a fit beside others, scored, timed and kept, in fits of the probe alone
_UNKNOWN_FOLDS = 3
_REPEAT_ROWS, _MANY_ROWS = 5_000, 10_000
_LEAST_FIT_S = 0.05  # what a fold costs at the very least, scores and ledger included
_MOST_LIKE_ROUNDS = 200.0  # that a fit of fixed length takes as long as
_UNFINISHED = 3.0  # a probe that the time cut short needed about so many times more rounds
_WORTHWHILE = 6  # configurations that an ensemble should have to choose from, the first of the portfolio


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What LightGBM with a learning rate of 0.1 and 50 leaves takes: seconds a round, rounds to its best.

    `wide` is what the same takes where it reads pairs of numbers besides, in its own time; `gain` the share
    of the loss that they take off on rows held back. It is of so many `rows`, 0 where they are not known.
    `start_s` is how long a new worker took until it had what it imports.
    """

    round_s: float
    rounds: float
    wide: float = _WIDE
    gain: float = 0.0
    rows: float = 0.0
    start_s: float = WORKER_S

    def of(self, rows: float) -> Pace:
        """Return what so many rows would take."""
        growth = rows / self.rows if self.rows else 1.0
        return dataclasses.replace(self, round_s=growth * self.round_s, rows=rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A short fit: its rounds to the best, of `taken`, its seconds, and the loss there on rows held back.

    `begun` is when its worker had what it imports (`time.time()`).
    """

    rounds: int
    taken: int
    seconds: float
    loss: float
    cut: bool
    begun: float = 0.0


def probe_fit(rows: Rows, problem: Problem, *, seconds: float, pairs: int = 0) -> Probe:
    """Fit on four fifths of the rows for at most so long."""
    yield_cpu()
    probe = family("lightgbm")
    order = np.random.default_rng(0).permutation(len(rows.y))
    cut = max(1, len(order) // 5)
    fit, held = rows.take(order[cut:]), rows.take(order[:cut])
    # neither the library's import nor finding pairs, which is done once for many fits, is a part of the pace
    probe.fit(problem, fit, {"pairs": pairs}, valid=None, rounds=1)
    begun = time.time()
    timed = dataclasses.replace(problem, deadline=begun + seconds)
    params = {"learning_rate": PROBE_RATE, "num_leaves": PROBE_LEAVES, "min_data_in_leaf": 20, "pairs": pairs}
    model = probe.fit(timed, fit, params, valid=held, rounds=0)
    spent = time.time() - begun
    cut_short = spent >= seconds
    return Probe(
        rounds=model.rounds,
        taken=max(1, model.rounds + (0 if cut_short else 30)),  # it ran on until its patience ended
        seconds=spent,
        loss=_LOSSES[problem.task](held.y, model.predict(held.X)),
        cut=cut_short,
        begun=begun,
    )


def pace_of(plain: Probe, wide: Probe, *, rows: int, probed: int) -> Pace:
    """Return the pace that fits on `probed` of the rows without and with pairs show."""
    rounds = plain.rounds * (_UNFINISHED if plain.cut else 1.0)
    pace = Pace(round_s=plain.seconds / plain.taken, rounds=rounds, rows=probed).of(rows)
    costs = wide.seconds / wide.taken * wide.rounds / max(1e-3, plain.seconds / plain.taken * plain.rounds)
    gain = (plain.loss - wide.loss) / plain.loss if plain.loss > 0 else 0.0
    if not np.isfinite([costs, gain]).all():
        return pace
    return dataclasses.replace(pace, wide=float(np.clip(costs, *_WIDE_BOUNDS)), gain=float(gain))


def fit_seconds(pace: Pace, name: str, params: dict[str, Any]) -> float:
    """Return about how long a family's fit with these parameters takes; nothing is known of a user's own."""
    cost = traits(name)
    rate = float(params.get("learning_rate", PROBE_RATE))
    leaves = min(2.0 ** float(params.get("max_depth", params.get("depth", 6))), 64.0)
    leaves = float(params.get("num_leaves", params.get("max_leaves", leaves)))
    size = 0.4 + 0.6 * leaves / PROBE_LEAVES
    size *= _RANDOM_ROUNDS if params.get("extra_trees") else 1.0
    wide = pace.wide if params.get("pairs") else 1.0
    boosting = cost.per_round * pace.round_s * pace.rounds * PROBE_RATE / rate * size
    return wide * (boosting + cost.whole * pace.round_s * min(pace.rounds, _MOST_LIKE_ROUNDS))


def choose_folds(
    pace: Pace, trials: Sequence[Trial], core_s: float, *, rows: int, ordered: bool = False
) -> int:
    """Return how many folds leave room to choose from: a single hold-out, 3, 5, or 8.

    Of few rows, which chance parts unevenly, there are repeats of 8; of many a hold-out tells the trials
    apart, and more trials are worth more than folds, unless the rows are ordered in time.
    """
    trials = [trial for trial in trials if is_family(trial.family)]
    if not trials:  # all are drawn as the search goes, or of models that nothing is known of
        return _UNKNOWN_FOLDS
    needed = [_CROWDED * max(_LEAST_FIT_S, fit_seconds(pace, t.family, t.params)) for t in trials]
    if rows >= _MANY_ROWS and not ordered and core_s < 3 * sum(needed):
        return 1
    affordable = core_s / sum(needed[:_WORTHWHILE])
    counts = (24, 16, 8, 5, 3) if rows <= _REPEAT_ROWS else (8, 5, 3)
    return next((count for count in counts if count <= affordable), 1)
