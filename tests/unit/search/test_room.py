"""How many slots a search asks for, and what it is charged while a cluster grows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.codec import decode
from raywf.core.records import Rate
from raywf.core.settings import SearchSettings
from raywf.search.budget import Budget, Occupied, Taken, allowed_seconds
from raywf.search.ledger import Ledger
from raywf.search.room import Room, most_occupied, room_for

RATE = Rate(usd_per_cpu_hour=3600.0)  # a dollar for a CPU-second


def settings(**given: Any) -> SearchSettings:
    return decode(SearchSettings, {"budget_s": 100.0, **given})


@pytest.mark.parametrize(("cpus", "there"), [(0, 1), (1, 1), (3, 3), (9, 8)])
def test_a_cluster_that_grows_comes_to_what_was_asked(cpus: float, there: int) -> None:
    """From none, too."""
    room = room_for(settings(max_concurrent=8), None, cpus=cpus, grows=True)
    assert (room.there, room.most) == (there, 8)


@pytest.mark.parametrize(("grows", "most"), [(False, 8), (True, None)])
def test_nothing_is_asked_for_unless_both_say_so(grows: bool, most: int | None) -> None:
    """The cluster must be one that may grow, and the settings must say how far."""
    room = room_for(settings(max_concurrent=most), None, cpus=2, grows=grows)
    assert (room.there, room.most, room.grows) == (2, 2, False)


@given(
    cpus=st.integers(0, 12),
    asked=st.integers(1, 12),
    max_usd=st.floats(1.0, 5000.0),
    each=st.integers(1, 4),
    grown=st.lists(st.integers(0, 60), max_size=5),
)
def test_money_lasts_however_the_cluster_grows(
    cpus: int, asked: int, max_usd: float, each: int, grown: list[int]
) -> None:
    """And growing never takes time from a search."""
    search = settings(max_concurrent=asked, max_usd=max_usd, trial_cpus=each)
    room = room_for(search, RATE, cpus=cpus, grows=True)
    most = most_occupied(search, room.most, cpus=cpus, grows=True)
    allowed_s = allowed_seconds(search, RATE, cpus=most.cpus)
    for now in grown:
        assert allowed_s * room.occupied(cpus=now).cpus <= max_usd * (1 + 1e-9)
    there = most_occupied(search, room.there, cpus=cpus, grows=True)
    assert allowed_s >= allowed_seconds(search, RATE, cpus=there.cpus)


def test_a_wide_model_of_ones_own_is_charged_whole() -> None:
    """Each of the trials at once may be of it."""
    models = {"mine": {"code": "m.py:M", "trust": True, "cpus": 4}}
    room = room_for(settings(max_concurrent=2, models=models), None, cpus=16)
    assert room.occupied(cpus=16).cpus == 8


def test_gpus_to_come_are_paid_for() -> None:
    """As many as the slots' trials take."""
    models = {"mine": {"code": "m.py:M", "trust": True, "gpus": 0.5}}
    search = settings(max_concurrent=4, models=models)
    assert most_occupied(search, 4, cpus=0, gpus=1, grows=True).gpus == 2


def test_gpus_that_no_trial_takes_are_not_paid_for() -> None:
    """A slot's trial takes half a GPU of eight."""
    models = {"mine": {"code": "m.py:M", "trust": True, "gpus": 0.5}}
    search = settings(max_concurrent=1, models=models)
    assert room_for(search, None, cpus=16, gpus=8).occupied(cpus=16, gpus=8).gpus == 0.5
    assert most_occupied(search, 1, cpus=16, gpus=8).gpus == 0.5
    assert most_occupied(search, 1, cpus=16, gpus=8, grows=True).gpus == 0.5
    assert most_occupied(settings(max_concurrent=1), 1, cpus=16, gpus=8).gpus == 0


def test_what_was_taken_on_more_nodes_is_taken() -> None:
    """A search that ran on ten CPUs and goes on with one has the rest of its money."""
    taken = Taken(wall_s=10, cpu_s=100, cost_usd=100)
    assert allowed_seconds(settings(max_usd=150), RATE, cpus=1, taken=taken) == pytest.approx(60)
    assert allowed_seconds(settings(max_cpu_s=150), None, cpus=1, taken=taken) == pytest.approx(60)


def test_slots_to_come_count_from_when_they_come() -> None:
    """Not at all in a short search."""
    room = Room(search=settings(), there=1, most=5)
    assert (room.slot_seconds(60), room.slot_seconds(220)) == (60, 620)


def test_what_is_there_is_charged(tmp_path: Path) -> None:
    """The time between two notes at the larger of what there was."""
    ledger, sizes = Ledger(str(tmp_path), "sweep"), iter([1, 5, 2, 0])

    def measure() -> Occupied:
        return Occupied(slots=1, cpus=next(sizes))

    budget = Budget(ledger, 60.0, 1, rate=RATE, measure=measure)
    walls, charged = [0.0], [0.0]
    for _ in range(4):
        budget.note(at_once=True)
        walls.append(ledger.attempts()[0].wall_s)
        charged.append(budget.cpu_s)
    seconds = [b - a for a, b in itertools.pairwise(walls)]
    assert charged[-1] == pytest.approx(sum(s * c for s, c in zip(seconds, (1, 5, 5, 2), strict=True)))
    assert ledger.attempts()[0].cost_usd == pytest.approx(charged[-1])
    assert budget.cpus == 0
