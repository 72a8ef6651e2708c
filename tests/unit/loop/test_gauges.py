"""What the controller tells Prometheus: by a journal, ledgers and windows that were made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.core.errors import RegistryError
from raywf.core.journal import Journal
from raywf.core.records import Attempt, Drift, Evidence, ModelVersion
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.alerts import Pulse
from raywf.loop.gauges import Gauges
from raywf.search.ledger import Ledger
from raywf.testing import make_decision, make_version

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHAMPION = make_version(
    "7",
    uri="u",
    digest="d",
    run_id="r",
    snapshot_id="s",
    sweep_id="one",
    code_version="c",
    decision_id="d1",
    metrics={"roc_auc": 0.81},
    loss=0.2,
    loss_rows=900,
    cost_usd=1.0,
    created=NOON,
)


class Kept:
    """Keeps what it is told last."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, ...], float] = {}

    def count(self, name: str, more: float, tags: Mapping[str, str]) -> None:
        raise AssertionError("the loop's figures are gauges")

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        self.told[name.removeprefix("raywf_"), *tags.values()] = value


class System:
    """A running system of a pulse, windows and a champion, each set by the test."""

    def __init__(self) -> None:
        self.now, self.beat, self.seen = NOON, Pulse(predictions=90, labels=60), (window(),)
        self.away = False

    def pulse(self) -> Pulse:
        return self.beat

    def windows(self) -> Sequence[Evidence]:
        return self.seen

    def find(self, alias: str) -> ModelVersion | None:
        if self.away:
            raise RegistryError("away")
        return CHAMPION if alias == "champion" else None


def window(days: int = 0, **figures: object) -> Evidence:
    start = NOON + timedelta(days=days)
    given = {"rows": 100, "labelled": 40, "loss_sum": 10.0, "loss_squares": 4.0, **figures}
    return Evidence(version="7", start=start, end=start + timedelta(days=1), **given)  # type: ignore[arg-type]


@pytest.fixture
def system() -> System:
    """One that is well."""
    return System()


@pytest.fixture
def kept() -> Kept:
    """Nothing told yet."""
    return Kept()


@pytest.fixture
def gauges(tmp_path: Path, system: System, kept: Kept) -> Gauges:
    """The gauges of a workflow without a journal."""
    workflow = Workflow(
        name="w",
        task="binary",
        spine=SpineSettings(path="x.csv", label="y"),
        stores=StoreSettings(root=str(tmp_path)),
    )
    return Gauges(workflow, system, system, kept, now=lambda: system.now)


def test_the_champion_is_told(gauges: Gauges, kept: Kept) -> None:
    """Its number, since when, and what it was when it was let through."""
    gauges.tick()
    names = ("champion_version", "champion_since_seconds", "champion_loss", "champion_metric")
    assert [kept.told[name,] for name in names] == [7.0, NOON.timestamp(), 0.2, 0.81]


def test_each_figure_is_of_the_newest_window_that_has_it(gauges: Gauges, system: System, kept: Kept) -> None:
    """A window without labels yet has rows, and an estimate, but no metric."""
    drift = (Drift(column="a", psi=0.3, rows=9, missing=0.0), Drift(column="b", psi=0.1, rows=9, missing=0.0))
    system.seen = (
        window(metric=0.7, metric_low=0.65, metric_high=0.75, drift=drift),
        window(days=1, rows=50, labelled=0, loss_sum=0.0, estimate=0.72),
    )
    gauges.tick()
    told = {
        name: kept.told[f"window_{name}",]
        for name in ("metric", "metric_low", "loss", "labelled", "estimate", "rows")
    }
    assert told == {
        "metric": 0.7,
        "metric_low": 0.65,
        "loss": 0.25,
        "labelled": 40.0,
        "estimate": 0.72,
        "rows": 50.0,
    }
    assert (kept.told["window_pending",], kept.told["drift_psi",], kept.told["drifted_features",]) == (
        50,
        0.3,
        1,
    )


def test_decisions_are_counted_by_where_they_stand(tmp_path: Path, gauges: Gauges, kept: Kept) -> None:
    """All kinds and stages are told, so that none is left at what it was."""
    journal = Journal(str(tmp_path), "w")
    made = [make_decision(i, window=i, time=NOON) for i in "ab"]
    for decision in made:
        journal.decide(decision)
    journal.record(made[0], "submitted-1")
    gauges.tick()
    assert kept.told["decisions", "retrain", "running"] == 2
    journal.record(made[0], "promoted")
    journal.record(made[1], "failed")
    gauges.tick()
    counts = {key[1:]: value for key, value in kept.told.items() if key[0] == "decisions" and value}
    assert counts == {("retrain", "promoted"): 1, ("retrain", "failed"): 1}


def test_spending_is_of_the_workflow_and_of_the_day(
    tmp_path: Path, gauges: Gauges, system: System, kept: Kept
) -> None:
    """Looked up once in a while."""
    for hours, usd, name in ((-30, 2.0, "w"), (-1, 0.5, "w"), (-1, 9.0, "other")):
        begun = NOON + timedelta(hours=hours)
        ledger = Ledger(str(tmp_path), f"{name}{hours}")
        ledger.note(Attempt(workflow=name, started=begun, wall_s=1, cpu_s=1, cost_usd=usd))
    gauges.tick()
    assert (kept.told["spent_usd",], kept.told["spent_day_usd",]) == (2.5, 0.5)
    system.now += timedelta(days=1)
    gauges.tick()
    assert (kept.told["spent_usd",], kept.told["spent_day_usd",]) == (2.5, 0.0)


def test_a_silent_monitor_is_told(gauges: Gauges, system: System, kept: Kept) -> None:
    """What it does not say keeps its last figure."""
    gauges.tick()
    system.beat, system.now = Pulse(problem="the monitor does not answer"), NOON + timedelta(minutes=1)
    gauges.tick()
    assert (kept.told["well",], kept.told["log_predictions",], kept.told["log_labels",]) == (0.0, 90.0, 60.0)
    assert kept.told["looked_seconds",] == system.now.timestamp()


def test_a_registry_that_is_away_takes_nothing_else_along(gauges: Gauges, system: System, kept: Kept) -> None:
    """The rest is told."""
    system.away = True
    gauges.tick()
    assert ("well",) in kept.told
    assert ("champion_version",) not in kept.told
