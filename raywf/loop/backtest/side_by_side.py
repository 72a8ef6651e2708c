"""A backtest's policies played at once by Ray tasks, which share their trainings: each is done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raywf.loop.backtest.course import Course
from raywf.snapshots.failures import task_errors

Arguments = Callable[[Mapping[int, Course]], tuple[Any, ...] | None]  # by the courses so far; None: not yet
_LOOK_S = 0.2


class Desk:
    """Hands out turns to train, no more at once than the cluster holds; an actor.

    It keeps too what those who play have to say.
    """

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._taken: set[str] = set()
        self._said: list[str] = []

    def take(self, training: str) -> bool:
        """Take a turn for a training, if one is free and nobody else is at the same one; return whether."""
        if training in self._taken or len(self._taken) >= self._turns:
            return False
        self._taken.add(training)
        return True

    def give_back(self, training: str) -> None:
        """Give a turn back."""
        self._taken.discard(training)

    def say(self, text: str) -> None:
        """Keep a line for who asked for the backtest."""
        self._said.append(text)

    def said(self) -> list[str]:
        """Return the lines that were said since this was last asked."""
        told, self._said = self._said, []
        return told


class Player:
    """What a task that plays has of the desk."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def say(self, text: str) -> None:
        """Say a line, which is kept when this returns."""
        ray.get(self._desk.say.remote(text))

    @contextmanager
    def turn(self, training: str) -> Iterator[None]:
        """Wait for a turn to train, and have it until the end."""
        while not ray.get(self._desk.take.remote(training)):
            time.sleep(_LOOK_S)
        try:
            yield
        finally:
            ray.get(self._desk.give_back.remote(training))


class Table:
    """Where policies are played: in tasks of this node, since trainings are kept in a folder of it.

    At most `most` are played at once, by default one for each two CPUs of the cluster. Searches run at once
    as far as the cluster's CPUs hold those of `concurrent` trials each; one by one where that is None, for
    then each takes the whole cluster.
    """

    def __init__(self, *, most: int | None, concurrent: int | None, say: Callable[[str], None]) -> None:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        turns = 1 if concurrent is None else max(1, cpus // concurrent)
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._most, self._say = most or max(1, cpus // 2), say
        self._options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": node}
        self._desk = ray.remote(Desk).options(**self._options).remote(turns)

    def play(self, play: Callable[..., Course], asked: Sequence[Arguments]) -> list[Course]:
        """Return ``play(player, *arguments)`` of each that is asked for, in their order.

        Raises:
            RaywfError: what one of them raised; the others are ended then.
        """
        task = ray.remote(play).options(**self._options, max_retries=0)
        waiting, courses = dict(enumerate(asked)), dict[int, Course]()
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                for i in list(waiting):
                    arguments = waiting[i](courses) if len(running) < self._most else None
                    if arguments is not None:
                        running[task.remote(Player(self._desk), *arguments)] = i
                        del waiting[i]
                done = ray.wait(list(running), timeout=_LOOK_S)[0]
                with task_errors("the backtest's"):
                    courses.update((running.pop(one), ray.get(one)) for one in done)
                self._tell()
        finally:
            for one in running:
                ray.cancel(one, force=True)
            ray.kill(self._desk)
        return [courses[i] for i in range(len(asked))]

    def _tell(self) -> None:
        for line in ray.get(self._desk.said.remote()):
            self._say(line)
