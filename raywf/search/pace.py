"""How long fits take on these rows: a short measurement, and what follows from it for folds and order."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raywf.core.niceness import yield_cpu
from raywf.core.records import Trial
from raywf.models.families import family, traits
from raywf.models.family import Problem, Rows

PROBE_RATE, PROBE_LEAVES = 0.1, 50
PROBE_ROWS = 40_000
_RANDOM_ROUNDS = 3.0  # of trees with random thresholds, which learn less each
_CROWDED = 2.5  # a fit beside others, scored, timed and kept, in fits of the probe alone
_UNKNOWN_FOLDS = 3
_REPEAT_ROWS, _MANY_ROWS = 5_000, 10_000
_LEAST_FIT_S = 0.05  # what a fold costs at the very least, scores and ledger included
_MOST_LIKE_ROUNDS = 200.0  # that a fit of fixed length takes as long as
_UNFINISHED = 3.0  # a probe that the time cut short needed about so many times more rounds
_WORTHWHILE = 6  # configurations that an ensemble should have to choose from, the first of the portfolio


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What LightGBM with a learning rate of 0.1 and 50 leaves takes: seconds a round, rounds to its best."""

    round_s: float
    rounds: float


def measure_pace(rows: Rows, problem: Problem, *, seconds: float, whole: int) -> Pace:
    """Fit on four fifths of the rows for at most so long; `whole` is the row count to scale up to."""
    yield_cpu()
    probe = family("lightgbm")  # its import is not a part of the pace
    probe.fit(problem, rows.take(np.arange(min(50, len(rows.y)))), {}, valid=None, rounds=1)
    order = np.random.default_rng(0).permutation(len(rows.y))
    cut = max(1, len(order) // 5)
    begun = time.time()
    timed = dataclasses.replace(problem, deadline=begun + seconds)
    params = {"learning_rate": PROBE_RATE, "num_leaves": PROBE_LEAVES, "min_data_in_leaf": 20}
    model = probe.fit(timed, rows.take(order[cut:]), params, valid=rows.take(order[:cut]), rounds=0)
    spent = time.time() - begun
    cut_short = spent >= seconds
    taken = model.rounds + (0 if cut_short else 30)  # it ran on until its patience ended
    return Pace(
        round_s=spent / max(1, taken) * max(1.0, whole / len(rows.y)),
        rounds=model.rounds * (_UNFINISHED if cut_short else 1.0),
    )


def fit_seconds(pace: Pace, name: str, params: dict[str, Any]) -> float:
    """Return about how long a family's fit with these parameters takes; nothing is known of a user's own."""
    cost = traits(name)
    rate = float(params.get("learning_rate", PROBE_RATE))
    leaves = min(2.0 ** float(params.get("max_depth", params.get("depth", 6))), 64.0)
    leaves = float(params.get("num_leaves", params.get("max_leaves", leaves)))
    size = 0.4 + 0.6 * leaves / PROBE_LEAVES
    size *= _RANDOM_ROUNDS if params.get("extra_trees") else 1.0
    boosting = cost.per_round * pace.round_s * pace.rounds * PROBE_RATE / rate * size
    return boosting + cost.whole * pace.round_s * min(pace.rounds, _MOST_LIKE_ROUNDS)


def choose_folds(
    pace: Pace, trials: Sequence[Trial], core_s: float, *, rows: int, ordered: bool = False
) -> int:
    """Return how many folds leave room to choose from: a single hold-out, 3, 5, or 8.

    Of few rows, which chance parts unevenly, there are repeats of 8; of many a hold-out tells the trials
    apart, and more trials are worth more than folds, unless the rows are ordered in time.
    """
    if not trials:  # all are drawn as the search goes
        return _UNKNOWN_FOLDS
    needed = [_CROWDED * max(_LEAST_FIT_S, fit_seconds(pace, t.family, t.params)) for t in trials]
    if rows >= _MANY_ROWS and not ordered and core_s < 3 * sum(needed):
        return 1
    affordable = core_s / sum(needed[:_WORTHWHILE])
    counts = (24, 16, 8, 5, 3) if rows <= _REPEAT_ROWS else (8, 5, 3)
    return next((count for count in counts if count <= affordable), 1)
