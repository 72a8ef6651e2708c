"""Which members a refit fits by itself: those whose fits take less than a worker's start."""

from __future__ import annotations

from typing import Any

import pytest

from raywf.core.records import Member, Sweep, Trial
from raywf.search.again import quick_members
from raywf.testing import make_sweep


def sweep(*seconds: float, folds: int = 2, **trial: Any) -> Sweep:
    """A sweep of members whose trials took so long, over so many folds."""
    named = [(f"t{i}", s) for i, s in enumerate(seconds)]
    tried = {"family": "linear", "params": {}, "status": "done", "fold_losses": (0.1,) * folds} | trial
    trials = tuple(Trial(id=name, seconds=s, **tried) for name, s in named)
    weight = 1 / len(named)
    members = tuple(
        Member(trial_id=t.id, family=t.family, params={}, rounds=1, weight=weight) for t in trials
    )
    return make_sweep("s", trials=trials, members=members)


@pytest.mark.parametrize(
    ("former", "found"),
    [
        ((sweep(1.0, 2.5),), {"t0", "t1"}),
        ((sweep(1.0, 2.5), sweep(90.0)), {"t0", "t1"}),
        ((sweep(1.0, 2.5, folds=1),), set()),
        ((sweep(1.0, folds=0),), set()),
        ((), set()),
    ],
)
def test_quick_members(former: tuple[Sweep, ...], found: set[str]) -> None:
    """By a fold of each; of the last sweep alone."""
    assert quick_members(former) == dict.fromkeys(found, "linear")
