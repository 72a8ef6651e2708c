"""A search's money in parts that add up to the whole."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.records import Attempt, Member, Sweep, Trial
from raywf.cost.allot import Parts, allot, trial_costs

USD = st.floats(0, 1e4, allow_subnormal=False)
STATUS = st.sampled_from(["done", "stopped", "failed"])


def attempt(usd: float) -> Attempt:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    return Attempt(workflow="w", started=started, wall_s=1, cpu_s=2, cost_usd=usd)


def sweep(trials: list[tuple[str, float]]) -> Sweep:
    """Return a sweep of trials by status and cost."""
    return Sweep(
        id="s",
        snapshot_id="d",
        metric="roc_auc",
        greater_is_better=True,
        trials=tuple(
            Trial(id=f"linear-{i}", family="linear", params={}, status=status, cost_usd=usd)
            for i, (status, usd) in enumerate(trials)
        ),
        members=(Member(trial_id="linear-0", family="linear", params={}, rounds=0, weight=1.0),),
        score=0.5,
        calibrated=False,
        budget_s=1,
        spent_s=1,
        cpu_s=2,
        cost_usd=1.0,
    )


@given(trials=st.lists(st.tuples(STATUS, USD), max_size=8), attempts=st.lists(USD, min_size=1, max_size=4))
def test_parts_add_up_to_what_was_occupied(trials: list[tuple[str, float]], attempts: list[float]) -> None:
    """Whatever the trials say they cost, no part is negative and the sum is the attempts' sum."""
    parts = allot(sweep(trials), [attempt(usd) for usd in attempts])
    assert parts.usd == pytest.approx(sum(attempts), abs=1e-9)
    assert all(getattr(parts, name) >= 0 for name in Parts.__slots__)
    assert parts.unfinished == 0


@given(st.lists(st.builds(Parts, done=USD, stopped=USD, failed=USD, idle=USD, unfinished=USD), max_size=4))
def test_sums_of_parts_are_parts_of_sums(parts: list[Parts]) -> None:
    """Adding by version, day or family gives the same whole."""
    assert sum(parts, Parts()).usd == pytest.approx(sum(p.usd for p in parts))


def test_what_no_trial_held_is_idle() -> None:
    """A dollar of CPUs, of which trials held three quarters."""
    parts = allot(sweep([("done", 0.5), ("stopped", 0.2), ("failed", 0.05)]), [attempt(0.4), attempt(0.6)])
    assert (parts.done, parts.stopped, parts.failed) == (0.5, 0.2, 0.05)
    assert parts.idle == pytest.approx(0.25)


def test_an_unfinished_search_is_of_one_part() -> None:
    """Its trials may yet be used: it goes on where it stopped."""
    assert allot(None, [attempt(0.4), attempt(0.6)]) == Parts(unfinished=1.0)


def test_a_trial_tells_its_weight() -> None:
    """What it came to in the ensemble, 0 for those outside."""
    assert [t.weight for t in trial_costs(sweep([("done", 0.1), ("done", 0.1)]), 1.0)] == [1.0, 0.0]


def test_a_sweep_tells_what_was_idle() -> None:
    """The difference, never below nothing."""
    assert sweep([("done", 0.25)]).idle_usd == 0.75
    assert sweep([("done", 1.25)]).idle_usd == 0.0
