"""What a search's leaderboard says besides scores."""

from __future__ import annotations

import dataclasses

import pytest

from raywf.cli.leaderboard import leaderboard, left_over
from raywf.core.records import Member
from raywf.search.portfolio import make_trial
from raywf.testing import make_sweep

QUICK, SLOW = (
    dataclasses.replace(
        make_trial("lightgbm", {"num_leaves": leaves}),
        status="done",
        fold_losses=(loss, loss),
        score=loss,
        row_us=row_us,
    )
    for leaves, loss, row_us in ((8, 0.3, 20.0), (255, 0.2, 900.0))
)
SWEEP = make_sweep(
    "s",
    trials=(QUICK, SLOW),
    members=(Member(trial_id=QUICK.id, family="lightgbm", params=QUICK.params, rounds=9, weight=1.0),),
    passed_over=(SLOW.id,),
)


def test_what_was_passed_over_says_so() -> None:
    """The best trial has no weight: its row takes too long."""
    lines = leaderboard(SWEEP)
    (slow,) = (line for line in lines if line.startswith(SLOW.id))
    assert "slow" in slow.split()
    assert "slow: alone above search.row_ms" in lines[-1]
    assert "slow" not in " ".join(leaderboard(dataclasses.replace(SWEEP, passed_over=())))


def test_why_trials_failed_is_told() -> None:
    """Each reason once."""
    cut = [
        dataclasses.replace(make_trial("torch", {"lr": lr}), status="failed", error="out of memory")
        for lr in (0.1, 0.2)
    ]
    lines = leaderboard(dataclasses.replace(SWEEP, trials=(QUICK, *cut)))
    assert lines[-1] == f"failed: {cut[0].id} and 1 more: out of memory"


def test_of_many_trials_the_best_are_shown() -> None:
    """Twelve of them, and the member that is far behind; the rest is counted."""
    many = [
        dataclasses.replace(QUICK, id=f"linear-{i}", fold_losses=(0.1 + i / 1e4, 0.1 + i / 1e4))
        for i in range(300)
    ]
    lines = leaderboard(dataclasses.replace(SWEEP, trials=(*many, QUICK)))
    assert len(lines) == 2 + 13 + 1
    assert any(line.startswith(QUICK.id) for line in lines)
    assert lines[-1].startswith("288 more trials; behind")


@pytest.mark.parametrize(("trials", "spent_s", "count"), [(2, 20, 1), (40, 20, 0), (2, 55, 0)])
def test_time_that_was_left_is_told(trials: int, spent_s: float, count: int) -> None:
    """Where the trials were all that it might run, and not where the time was used."""
    found = left_over(dataclasses.replace(SWEEP, spent_s=spent_s), trials)
    assert len(found) == count
    assert all("all 2 trials ran in 20 of 60 s" in line for line in found)
    assert left_over(dataclasses.replace(SWEEP, effort="refit"), 2) == []
