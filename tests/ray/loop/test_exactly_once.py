"""The decision journal under crashes before and after each write and each submission."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import ray

from raywf.core.codec import encode
from raywf.core.journal import FINAL, Journal
from raywf.core.probe import Probe
from raywf.core.records import Evidence, ModelVersion
from raywf.core.settings import MonitorSettings, RetrainSettings, SpineSettings, StoreSettings, Workflow
from raywf.core.store import Store
from raywf.loop.controller import Controller

CRASHES, REQUESTS = 500, 3
PROMOTED = datetime(2024, 1, 1, tzinfo=UTC)


class Crash(BaseException):
    """The process is gone."""


class Fuse:
    """Goes off at one of the points that the process passes: before or after a write or a submission."""

    def __init__(self) -> None:
        self.left = -1

    def arm(self, points: int) -> None:
        """Let so many points pass."""
        self.left = points

    def point(self) -> None:
        """Pass one."""
        self.left -= 1
        if self.left == 0:
            raise Crash

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with a point before and after it."""

        def fused(*given: Any, **named: Any) -> Any:
            self.point()
            found = call(*given, **named)
            self.point()
            return found

        return fused


class Table:
    """A cluster's table of jobs, which outlives controllers. A job that is accepted runs later, once."""

    def __init__(self, journal: Journal, fuse: Fuse, draw: random.Random) -> None:
        self._journal, self._fuse, self._draw = journal, fuse, draw
        self.states: dict[str, str] = {}
        self.done: Counter[str] = Counter()  # what was carried out, by decision
        self._todo: list[tuple[str, str]] = []

    def submit(self, _kind: str, job_id: str, _option: str, decision_id: str) -> bool:
        """Take a job of a new id."""
        self._fuse.point()
        new = job_id not in self.states
        if new:
            self.states[job_id] = "RUNNING"
            self._todo.append((job_id, decision_id))
        self._fuse.point()
        return new

    def status(self, job_id: str) -> str:
        """Return the state."""
        return self.states.get(job_id, "UNKNOWN")

    def logs(self, job_id: str) -> str:
        """Return nothing."""
        return job_id

    def work(self) -> None:
        """Carry one job out, or let it die before it has done anything."""
        if not self._todo or self._draw.random() < 0.3:
            return
        job_id, decision_id = self._todo.pop(0)
        decision = self._journal.decision(decision_id)
        assert decision is not None, "a job of a decision that was not written before"
        if self._draw.random() < 0.2:
            self.states[job_id] = "FAILED"
            return
        self.done[decision_id] += 1
        if decision.kind == "probe":
            looked = Probe(
                version="1",
                since=decision.time,
                time=decision.time,
                rows=0,
                champion=0,
                quick=0,
                error=0,
                cpu_s=0,
            )
            self._journal.record(decision, "looked", figures=encode(looked))
        else:
            self._journal.record(decision, "rejected", reasons=("no better",))
        self.states[job_id] = "SUCCEEDED"


class OneChampion:
    """A registry with one version."""

    def find(self, alias: str) -> ModelVersion | None:
        """Return the champion."""
        if alias != "champion":
            return None
        return ModelVersion(
            workflow="w",
            version="1",
            uri="",
            digest="",
            run_id="",
            status="champion",
            snapshot_id="",
            sweep_id="",
            code_version="",
            parent=None,
            decision_id="",
            metrics={},
            loss=0.1,
            loss_rows=500,
            cost_usd=0.0,
            created=PROMOTED,
            fitted_until=PROMOTED,
        )


@ray.remote(num_cpus=0)
class NoEvidence:
    """A monitor without a window."""

    def evidence(self, _version: str) -> tuple[Evidence, ...]:
        """Return none."""
        return ()


def controller_of(workflow: Workflow, monitor: Any, table: Table) -> Controller:
    made = Controller(workflow, OneChampion(), monitor)  # type: ignore[arg-type]
    made._stopped.set()  # ticks when the test says so
    made._jobs = table  # type: ignore[assignment]
    return made


def settings(root: Path) -> Workflow:
    return Workflow(
        name="w",
        task="binary",
        spine=SpineSettings(path="x.csv", label="y", event_time="t"),
        monitor=MonitorSettings(poll_s=3600),
        retrain=RetrainSettings(max_attempts=20),
        stores=StoreSettings(root=str(root)),
    )


@pytest.mark.parametrize("part", range(5))
def test_each_decision_is_done_once_and_none_is_lost(
    part: int, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three requests and the looks that are due, with 100 crashes in each part."""
    fuse, crashes, number = Fuse(), 0, 0
    for call in ("create", "write"):
        monkeypatch.setattr(Store, call, fuse.around(getattr(Store, call)))
    monitor = NoEvidence.remote()
    while crashes < CRASHES / 5:
        number += 1
        draw = random.Random(1000 * part + number)
        journal = Journal(str(tmp_path / str(number)), "w")
        table = Table(journal, fuse, draw)
        fuse.arm(-1)
        asked = {journal.request("please") for _ in range(REQUESTS)}
        workflow = settings(tmp_path / str(number))
        controller = controller_of(workflow, monitor, table)
        for _ in range(400):
            fuse.arm(draw.randint(1, 8))
            try:
                controller.tick()
            except Crash:
                crashes += 1
                controller = controller_of(workflow, monitor, table)
            fuse.arm(-1)
            table.work()
            decisions = journal.decisions()
            ended = {e.decision_id for e in journal.entries() if e.stage in FINAL}
            if ended == {d.id for d in decisions} and asked <= {d.window for d in decisions}:
                break
        assert sorted(d.window for d in decisions if d.kind == "retrain") == sorted(asked)
        assert ended == {d.id for d in decisions}
        assert set(table.done.values()) == {1}
        assert set(table.done) == {d.id for d in decisions}
    ray.kill(monitor)
