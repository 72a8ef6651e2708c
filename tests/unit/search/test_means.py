"""How long a search waits for what comes before its trials."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayError

from raywf.core.settings import SearchSettings
from raywf.search.budget import Budget, Taken
from raywf.search.ledger import Ledger
from raywf.search.means import Means
from raywf.search.room import room_for
from raywf.search.waiting import SlotWatch


class Cluster:
    """Stands in for Ray: the first `ready` tasks are done at once, the others wait for other jobs' CPUs."""

    def __init__(self, ready: int) -> None:
        self.ready, self.cancelled = ready, list[Any]()

    def wait(self, tasks: list[int], *, num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        left = [task for task in tasks if task >= self.ready]
        time.sleep(timeout if left else 0.0)
        return [task for task in tasks if task < self.ready], left

    def get(self, tasks: list[int]) -> list[int]:
        return tasks

    def cancel(self, task: int) -> None:
        self.cancelled.append(task)


def make_means(folder: Path, said: list[str], *, budget_s: float, slots: int = 2) -> Means:
    """Return the means of so many slots."""
    room = room_for(SearchSettings(), None, cpus=2, gpus=0, grows=False, taken=Taken())
    budget = Budget(Ledger(str(folder), "s"), budget_s, float(slots), slots=slots)
    return Means(budget=budget, room=room, watch=SlotWatch(said.append, most=2), say=said.append)


@pytest.mark.parametrize("ready", [0, 1, 2])
def test_what_other_jobs_hold_up_is_waited_for_a_while(
    ready: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is cancelled and told, and the rest of the budget is for trials."""
    cluster, said = Cluster(ready), list[str]()
    names = ("wait", "get", "cancel")
    monkeypatch.setattr("raywf.search.means.ray", SimpleNamespace(**{n: getattr(cluster, n) for n in names}))
    means = make_means(tmp_path, said, budget_s=0.4)
    if ready == 2:
        assert means.get([0, 1]) == [0, 1]
        return
    with pytest.raises(RayError, match=f"{2 - ready} of 2 tasks had not ended"):
        means.get([0, 1])
    assert cluster.cancelled == [0, 1][ready:]
    assert said == ["no CPU was free to measure how long fits take, for 0 s; it is guessed"]
    assert means.budget.left_s > 0


def test_a_first_node_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long: until it is there nothing could be tried either."""
    cluster, said = Cluster(1), list[str]()
    monkeypatch.setattr("raywf.search.means.ray", cluster)
    monkeypatch.setattr("raywf.search.means._LOOK_S", 0.05)
    means = make_means(tmp_path, said, budget_s=0.4, slots=0)
    rounds = 0

    def comes_at_last(waiting: int) -> None:
        nonlocal rounds
        assert waiting == 1
        rounds += 1
        cluster.ready = 2 if rounds == 10 else 1

    monkeypatch.setattr(Means, "tick", lambda _means, waiting: comes_at_last(waiting) if waiting else None)
    assert means.get([0, 1]) == [0, 1]
    assert rounds == 10


@pytest.mark.parametrize(("budget_s", "wait_s"), [(8, 4), (30, 10), (600, 150)])
def test_a_small_budget_waits_for_its_workers(budget_s: float, wait_s: float, tmp_path: Path) -> None:
    """They take seconds to start; of a larger one it is a quarter."""
    means = make_means(tmp_path, [], budget_s=budget_s)
    assert means._longest_wait_s() == pytest.approx(wait_s, abs=0.2)
