"""What a search has to work with: its clock, its slots, and who hears what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from raywf.core.errors import SearchError
from raywf.core.records import Rate
from raywf.core.settings import SearchSettings
from raywf.search.budget import START_S, Budget, Occupied, allowed_seconds, taken_before
from raywf.search.ledger import Ledger
from raywf.search.nodes import offered, refuse_too_large
from raywf.search.room import Room, most_occupied, room_for
from raywf.search.waiting import SlotWatch

_USED = 0.85  # of the slots' time that trials get to use, once their workers are up
_LOOK_S = 1.0
_NODE_WAIT_S = 900.0
_WAIT_SHARE, _LEAST_WAIT_S, _MOST_WAIT_SHARE = 0.25, 10.0, 0.5  # of the budget, for what comes before trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """A search's clock and its room; `watch` is told of both as it goes, and `say` what came in between."""

    budget: Budget
    room: Room
    watch: SlotWatch
    say: Callable[[str], None] = field(default=lambda _text: None)

    @property
    def slots(self) -> int:
        """How many trials run at once on the nodes that are there by now."""
        return max(1, self.budget.slots)

    @property
    def slot_seconds(self) -> float:
        """The slots' time that trials get to use, by what the whole search may take."""
        return self.room.slot_seconds(max(1.0, _USED * (self.budget.allowed_s - START_S)))

    def tick(self, waiting: int) -> None:
        """Charge what is there, and say what is waited for while so many trials wait."""
        self.budget.note()
        self.watch.see(up=self.budget.slots, waiting=waiting)

    def tick_tasks(self, running: int, waiting: int) -> None:
        """As `tick`, of tasks that were asked for, which may be more than fit, and of others that wait."""
        self.tick(waiting + max(0, running - self.budget.slots))

    def get(self, tasks: Sequence[Any]) -> list[Any]:
        """Return what the tasks give, which may have to wait for a first node, or for other jobs' CPUs.

        Raises:
            RayError: if one failed, or a share of the budget was waited for it in vain though there was a
                node: what is left is for the trials.
        """
        left, waited_s, most_s = list(tasks), 0.0, self._longest_wait_s()
        while left:
            begun, has_node = time.monotonic(), self.budget.slots > 0
            left = ray.wait(left, num_returns=len(left), timeout=min(_LOOK_S, most_s))[1]
            waited_s += time.monotonic() - begun if has_node else 0.0
            self.tick(len(left) if not has_node else 0)
            if left and waited_s > most_s:
                for task in left:
                    ray.cancel(task)
                self.say(f"no CPU was free to measure how long fits take, for {most_s:.0f} s; it is guessed")
                raise GetTimeoutError(f"{len(left)} of {len(tasks)} tasks had not ended after {most_s:.0f} s")
        return list(ray.get(list(tasks)))

    def _longest_wait_s(self) -> float:
        """Return how long tasks before the trials are waited for; new workers of a small budget take long."""
        left_s = max(0.0, self.budget.left_s)
        return max(_WAIT_SHARE * left_s, min(_LEAST_WAIT_S, _MOST_WAIT_SHARE * left_s))


def find_means(
    search: SearchSettings,
    ledger: Ledger,
    nodes: Mapping[str, str],
    *,
    workflow: str,
    decision: str,
    rate: Rate | None,
    grows: bool,
    say: Callable[[str], None],
    bound: Callable[[float], float],
) -> Means:
    """Return the means on the nodes with these labels; `bound` shortens the seconds that are allowed.

    The clock begins once there is a node: a cluster that grows from none is waited for.

    Raises:
        SearchError: if there is none for a quarter of an hour.
        SettingsError: if a trial takes more than any node of one that does not grow has.
    """
    if grows and offered(nodes, "CPU") == 0:
        _await_node(search, nodes, say)
    if not grows:
        refuse_too_large(search, nodes)
    cpus, gpus = offered(nodes, "CPU"), _gpus(search, nodes)
    taken = taken_before(ledger)
    room = room_for(search, rate, cpus=cpus, gpus=gpus, grows=grows, taken=taken)
    most = most_occupied(search, room.most, cpus=cpus, gpus=gpus, grows=grows)
    allowed_s = allowed_seconds(search, rate, cpus=most.cpus, gpus=most.gpus, taken=taken)
    measure = partial(_measure, room, search, nodes)
    now = measure()
    budget = Budget(
        ledger,
        bound(allowed_s),
        now.cpus,
        gpus=now.gpus,
        slots=now.slots,
        workflow=workflow,
        decision=decision,
        rate=rate,
        measure=measure,
    )
    return Means(budget=budget, room=room, watch=SlotWatch(say, most=room.most), say=say)


def _await_node(search: SearchSettings, nodes: Mapping[str, str], say: Callable[[str], None]) -> None:
    ask = ray.remote(num_cpus=search.trial_cpus, max_retries=-1, label_selector=dict(nodes) or None)(_nothing)
    task, watch, end = ask.remote(), SlotWatch(say, most=1), time.monotonic() + _NODE_WAIT_S
    while ray.wait([task], timeout=_LOOK_S)[1]:
        watch.see(up=0, waiting=1)
        if time.monotonic() > end:
            ray.cancel(task)
            where = f" labelled {dict(nodes)}" if nodes else ""
            raise SearchError(f"no node{where} with a CPU came within {_NODE_WAIT_S:.0f} s; see 'ray status'")


def _nothing() -> None:
    """A task that only wants to run."""


def _measure(room: Room, search: SearchSettings, nodes: Mapping[str, str]) -> Occupied:
    return room.occupied(cpus=offered(nodes, "CPU"), gpus=_gpus(search, nodes))


def _gpus(search: SearchSettings, nodes: Mapping[str, str]) -> float:
    """Return the GPUs that the search may occupy: none, unless a model of the user's own takes some."""
    asked = any(model.gpus for model in search.models.values())
    return offered(nodes, "GPU") if asked else 0.0
