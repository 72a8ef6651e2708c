"""A retraining on a real Ray cluster and a real MLflow, and done again as after a crash."""

from __future__ import annotations

import csv
import itertools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.cli.why import tell
from raywf.core.clock import format_time
from raywf.core.codec import decode
from raywf.core.errors import NoVersionError, ValidationError
from raywf.core.journal import FINAL, LOOKED, Journal
from raywf.core.probe import Probe
from raywf.core.records import Decision
from raywf.core.retrain_settings import RetrainSettings
from raywf.core.settings import SearchSettings, SpineSettings, StoreSettings, Workflow
from raywf.loop.landed import TableWatch
from raywf.loop.pipeline import Retraining, retrain
from raywf.loop.probe import look
from raywf.loop.spending import by_version, read_spending
from raywf.loop.why import tell_version
from raywf.registry.registry import open_registry
from raywf.search.data import newest_instant
from raywf.snapshots.catalog import read_snapshot
from raywf.testing import make_decision

START = datetime(2024, 1, 1, tzinfo=UTC)
STAGES = ["snapshot", "searched", "gated", "registered", "promoted"]


def write_table(path: Path, *, leak: bool = False) -> None:
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["at", "x", "late"])
        for i in range(1200):
            x = draw.uniform(0, 1)
            late = int(draw.random() < 0.1 + 0.7 * (x > 0.5))
            writer.writerow([(START + timedelta(hours=i)).isoformat(), late if leak else x, late])


def decide(name: str, *, day: int = 30) -> Decision:
    return make_decision(
        name, workflow="orders", window=name, reasons=("a test",), time=START + timedelta(days=day)
    )


def settings(folder: Path) -> Workflow:
    return Workflow(
        name="orders",
        task="binary",
        spine=SpineSettings(path=str(folder / "table.csv"), label="late", event_time="at"),
        search=SearchSettings(budget_s=40, trials=1, folds=2, families=("linear",)),
        stores=StoreSettings(root=str(folder / "root")),
    )


@pytest.fixture(scope="module")
def first(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workflow, Retraining]:
    """A workflow whose first decision has been carried out."""
    folder = tmp_path_factory.mktemp("orders")
    write_table(folder / "table.csv")
    workflow = settings(folder)
    return workflow, retrain(workflow, decide("d1"))


@pytest.fixture
def crash(first: tuple[Workflow, Retraining]) -> Callable[..., Journal]:
    """Take stages of a decision out of the journal, as if it had been killed before it wrote them."""

    def forget(*stages: str) -> Journal:
        workflow = first[0]
        for stage in stages:
            (Path(workflow.stores.root) / "journal" / "orders" / f"d1.stage-{stage}.json").unlink()
        return Journal(workflow.stores.root, "orders")

    return forget


def test_a_look_is_in_the_journal(first: tuple[Workflow, Retraining]) -> None:
    """The champion beside a quick model on two weeks that neither has seen; the journal has it."""
    workflow = first[0]
    decision = replace(
        decide("look", day=45), kind="probe", cause="look", window=format_time(decide("d1").time)
    )
    journal = Journal(workflow.stores.root, "orders")
    journal.decide(decision)
    found = look(workflow, decision)
    assert 15 * 24 - 2 <= found.rows <= 15 * 24
    assert found.version == "1"
    assert found.regret < 0.25  # a line beside trees
    assert decode(Probe, journal.stages("look")[LOOKED].figures) == found


def test_data_that_landed_is_seen(first: tuple[Workflow, Retraining]) -> None:
    """A listing tells the versions that the snapshot was built from, and that a table was written since."""
    workflow = replace(first[0], retrain=RetrainSettings(on_data=True))
    champion = open_registry(workflow).find("champion")
    assert champion is not None
    seconds, table = itertools.count(0, 60), Path(workflow.spine.path)
    watch, before = TableWatch(workflow, clock=lambda: next(seconds)), table.stat()
    assert [watch.landed(champion) for _ in range(3)] == [None] * 3
    os.utime(table, (0, 0))
    found = [watch.landed(champion) for _ in range(2)]
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [one and one.tables for one in found] == [None, ("spine",)]


def test_every_stage_is_in_the_journal(first: tuple[Workflow, Retraining]) -> None:
    """In order, the gate's with its verdict, the last with the version."""
    workflow, done = first
    stages = Journal(workflow.stores.root, "orders").stages("d1")
    assert list(stages) == STAGES
    assert stages["gated"].figures["outcome"] == done.verdict.outcome == "accept"
    assert stages["promoted"].figures["version"] == done.version.version == "1"
    assert set(done.version.aliases) == {"challenger", "champion"}


def test_the_cost_is_told(first: tuple[Workflow, Retraining]) -> None:
    """By the sweep, its trials, the version and what was spent: CPUs for as long as they were occupied."""
    workflow, done = first
    sweep = done.sweep
    assert 0 < sum(t.cost_usd for t in sweep.trials) < sweep.cost_usd == done.version.cost_usd
    assert sweep.cost_usd == pytest.approx(sweep.cpu_s / 3600 * 0.0504, rel=0.05)
    line = by_version(read_spending(workflow))[0]
    assert (line.name, line.parts.usd) == ("1", pytest.approx(sweep.cost_usd))


def test_why_a_version_is_there(first: tuple[Workflow, Retraining]) -> None:
    """The story of the first version: its decision, snapshot, sweep, verdict, swap and cost."""
    workflow, done = first
    story = tell_version(workflow, "champion")
    assert story.made_by is not None
    assert (story.made_by.decision, [e.stage for e in story.made_by.stages]) == (decide("d1"), STAGES)
    assert (story.snapshot, story.sweep, story.verdict) == (done.snapshot, done.sweep, done.verdict)
    assert story.version.version == "1"
    assert [reign.end for reign in story.reigns] == [None]
    assert story.cost.usd == pytest.approx(done.sweep.cost_usd)
    told = "\n".join(tell(story))
    assert f"on {done.verdict.rows:,} rows that neither had seen" in told
    assert "a test" in told
    with pytest.raises(NoVersionError, match="'orders' has no version '9'"):
        tell_version(workflow, "9")


@pytest.mark.parametrize("lost", [("promoted",), ("registered", "promoted")])
def test_killed_after_the_alias_has_moved(
    lost: tuple[str, ...], first: tuple[Workflow, Retraining], crash: Callable[..., Journal]
) -> None:
    """The second attempt comes to the same end: the same version, promoted, not judged against itself."""
    workflow, done = first
    journal = crash(*lost)
    again = retrain(workflow, decide("d1"))
    assert (again.status, again.version, again.verdict) == ("promoted", done.version, done.verdict)
    assert FINAL & journal.stages("d1").keys() == {"promoted"}
    assert [v.version for v in open_registry(workflow).versions()] == ["1"]
    assert open_registry(workflow).find("previous") is None


def test_next_decision_is_judged_against_the_champion(first: tuple[Workflow, Retraining]) -> None:
    """On rows that are newer than any that the champion was fitted on, and starts from its sweep."""
    workflow, done = first
    later = retrain(workflow, decide("d2", day=45))
    assert later.verdict.against == "version 1"
    assert 0 < later.verdict.rows <= 15 * 24
    assert (later.version.parent, later.sweep.warm_from) == ("1", done.sweep.id)
    assert later.status in {"promoted", "rejected"}
    newest = newest_instant(read_snapshot(later.snapshot))
    assert (later.version.fitted_until == newest) == (later.verdict.outcome == "accept")


def test_no_newer_rows_keep_the_champion(first: tuple[Workflow, Retraining]) -> None:
    """Without a fresh labelled row nothing could be shown, so nothing is searched."""
    workflow, _ = first
    champion = open_registry(workflow).resolve("champion")
    with pytest.raises(ValidationError, match=r"^0 labelled rows are newer than those of version \d, "):
        retrain(workflow, decide("d3", day=20))
    assert list(Journal(workflow.stores.root, "orders").stages("d3")) == ["snapshot", "failed"]
    assert open_registry(workflow).resolve("champion").version == champion.version


def test_refused_data_end_the_decision(ray_session: None, tmp_path: Path) -> None:
    """The journal has it as failed, with the reason."""
    write_table(tmp_path / "table.csv", leak=True)
    workflow = settings(tmp_path)
    with pytest.raises(ValidationError, match="'x'"):
        retrain(workflow, decide("d1"))
    stages = Journal(workflow.stores.root, "orders").stages("d1")
    assert list(stages) == ["failed"]
    assert "'x'" in stages["failed"].reasons[0]
