"""A fall that the policy does nothing about: the controller tells why, and what it comes from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import ray

from raywf.core.attribution import Attribution
from raywf.core.journal import Journal
from raywf.core.records import Evidence, ModelVersion
from raywf.core.settings import MonitorSettings, RetrainSettings, SpineSettings, StoreSettings, Workflow
from raywf.core.skips import Skips
from raywf.loop.controller import Controller
from raywf.testing import make_decision, make_version

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
CHAMPION = make_version("1", loss=0.1, loss_rows=5000, created=NOW - 90 * DAY, fitted_until=NOW - 90 * DAY)


class OneChampion:
    """A registry with one version."""

    def find(self, alias: str) -> ModelVersion | None:
        """Return the champion."""
        return CHAMPION if alias == "champion" else None


@ray.remote(num_cpus=0)
class Monitor:
    """A monitor whose windows have the loss that the test says."""

    def __init__(self) -> None:
        self._loss, self._asked = 0.3, 0

    def set_loss(self, loss: float) -> None:
        """Let the windows have another loss."""
        self._loss = loss

    def asked(self) -> int:
        """Return how often it was asked what a fall comes from."""
        return self._asked

    def evidence(self, version: str) -> tuple[Evidence, ...]:
        """Return ten days' windows."""
        made = {"version": version, "rows": 500, "labelled": 500}
        return tuple(
            Evidence(
                start=NOW - (day + 1) * DAY,
                end=NOW - day * DAY,
                loss_sum=500 * self._loss,
                loss_squares=500 * (self._loss**2 + 0.02),
                **made,
            )
            for day in range(10, 0, -1)
        )

    def attribution(self, _version: str) -> Attribution:
        """Return one that says that nothing stands out."""
        self._asked += 1
        return Attribution(rows_before=5000, rows=5000, before=0.1, after=0.3)

    def counts(self) -> dict[str, int]:
        """Return what it has seen."""
        return {"predictions": 5000, "labelled": 5000}

    def error(self) -> str:
        """Return that nothing is amiss."""
        return ""


@pytest.fixture
def monitor(ray_session: None) -> Any:
    """A monitor, as long as the test lasts."""
    made = Monitor.remote()
    yield made
    ray.kill(made)


def test_a_fall_that_nothing_is_done_about(monitor: Any, tmp_path: Path) -> None:
    """The month's budget is spent: the pulse says so, and what the fall comes from, asked for once."""
    workflow = Workflow(
        name="w",
        task="binary",
        spine=SpineSettings(path="x.csv", label="y"),
        monitor=MonitorSettings(poll_s=3600),
        retrain=RetrainSettings(usd_per_30d=1.0),
        stores=StoreSettings(root=str(tmp_path)),
    )
    spent = make_decision("d0", time=NOW - 20 * DAY)
    journal = Journal(str(tmp_path), "w")
    journal.decide(spent)
    journal.record(spent, "failed", figures={"spent_usd": 2.0})
    controller = Controller(workflow, OneChampion(), monitor)  # type: ignore[arg-type]
    for _ in range(2):
        controller.tick()
    fallen = controller.pulse().fallen
    assert fallen is not None
    assert "of $1.00 that they may" in fallen
    assert "it rose alike everywhere" in fallen
    assert ray.get(monitor.asked.remote()) == 1
    ray.get(monitor.set_loss.remote(0.1))
    controller.tick()
    assert (
        controller.pulse().fallen is None
    )  # the budget holds still, and the loss is not up: nothing to tell
    assert [entry.stage for entry in Skips(str(tmp_path), "w").read()] == ["fallen-budget", "budget"]
