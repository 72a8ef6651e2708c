"""No trial begins while workers that end have its slot."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, field

from ray.tune.search import Searcher

from raywf.search.hold import Hold
from raywf.search.portfolio import make_trial
from raywf.search.queue import TrialQueue, planned


@dataclass
class Actors:
    """What Tune's controller knows of its workers."""

    num_total_actors: int = 0
    num_cached_objects: int = 0


@dataclass
class Controller:
    """Tune's controller, as far as a hold reads it."""

    _actor_manager: Actors = field(default_factory=Actors)

    @property
    def _actor_cache(self) -> Actors:
        return self._actor_manager


@dataclass
class Kept:
    """A controller whose trials take alike, or not."""

    _max_num_objects: dict[str, int]

    @property
    def _actor_cache(self) -> Kept:
        return self

    def increase_max(self, key: str, by: int) -> None:
        self._max_num_objects[key] += by


def test_trials_wait_for_workers_that_end() -> None:
    """One that is free is none of them; the queue is not finished meanwhile."""
    hold = Hold(2, grows=True)
    trials = [make_trial("linear", {"C": float(c)}) for c in (1, 2, 3, 4)]
    queue = TrialQueue(planned(trials, fold_rows=(9,), deadline=time.time() + 60, slots=2), hold=hold)
    assert [queue.suggest(f"t{i}") is None for i in range(3)] == [False, False, True]
    hold.look(Controller(Actors(2, 0)))
    assert queue.suggest("t3") is None
    hold.look(Controller(Actors(2, 1)))
    assert isinstance(queue.suggest("t3"), dict)
    assert queue.suggest("t4") is None


def test_the_end_is_told_once_there_is_room() -> None:
    """Nothing that is left to run is forgotten by it."""
    hold = Hold(1, grows=True)
    queue = TrialQueue(planned([], fold_rows=(9,), deadline=time.time() + 60), hold=hold)
    hold.look(Controller(Actors(1, 0)))
    assert queue.suggest("t0") is None
    hold.look(Controller(Actors(0, 0)))
    assert queue.suggest("t0") == Searcher.FINISHED


def test_workers_are_kept_while_trials_come() -> None:
    """And let go when there is none to begin, or where trials differ in what they take."""
    hold, kept = Hold(3, grows=True), Kept({"cpu": 1})
    found = []
    for tell in (hold.begin, hold.run_dry, hold.begin):
        tell()
        for _ in range(2):
            hold.look(kept)
        found.append(kept._max_num_objects["cpu"])
    kept._max_num_objects["gpu"] = 1
    hold.look(kept)
    assert [*found, *kept._max_num_objects.values()] == [4, 1, 4, 1, 1]


def test_workers_are_kept_to_the_end_where_no_node_is_to_go() -> None:
    """Nor does a trial wait for others' workers there."""
    hold, kept = Hold(2, grows=False), Kept({"cpu": 1})
    hold.run_dry()
    hold.look(kept)
    assert kept._max_num_objects["cpu"] == 3
    hold.look(Controller(Actors(2, 0)))
    assert not hold.is_full


@dataclass
class Waiting(Controller):
    """A controller with trials that wait, of which some have a worker that starts."""

    _pending_trials: tuple[str, ...] = ("old", "new")
    _trial_to_actor: tuple[str, ...] = ("old",)


def test_a_free_worker_is_for_the_trial_that_has_none() -> None:
    """Without a free one, or where all have theirs, the scheduler chooses."""
    hold, found = Hold(2, grows=True), []
    for controller in (
        Waiting(Actors(2, 1)),
        Waiting(Actors(2, 0)),
        Waiting(Actors(2, 1), _trial_to_actor=("old", "new")),
        Controller(),
    ):
        hold.look(controller)
        found.append(hold.first())
    assert found == ["new", None, None, None]


def test_another_tune_holds_nothing_back() -> None:
    """Rather than everything."""
    hold = Hold(1, grows=True)
    hold.look(object())
    assert not hold.is_full


def test_it_travels_without_the_controller() -> None:
    """Tune keeps the scheduler that looks."""
    hold = Hold(1, grows=True)
    hold.look(Controller(Actors(1, 0)))
    assert not pickle.loads(pickle.dumps(hold)).is_full
