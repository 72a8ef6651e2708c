"""The actor's class over a real log."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from raywf.core.errors import RegistryError
from raywf.core.metrics import METRICS
from raywf.core.records import Outcome, Prediction
from raywf.core.settings import MonitorSettings, SpineSettings, StoreSettings, Workflow
from raywf.monitor.actor import MonitorActor
from raywf.monitor.reference import KnownReferences, Reference
from raywf.outcomes.lines import log_folder, to_line

METRIC = METRICS["roc_auc"]
START = datetime(2020, 1, 1, tzinfo=UTC)
REFERENCES = KnownReferences({"1": Reference(version="1", task="binary", classes=("no", "yes"))})


class AwayOnce:
    """A registry that cannot be reached the first time."""

    def __init__(self) -> None:
        self.asked = 0

    def reference(self, version: str) -> Reference | None:
        """Fail once, then tell."""
        self.asked += 1
        if self.asked == 1:
            raise RegistryError("away")
        return REFERENCES.reference(version)


@pytest.fixture
def workflow(tmp_path):
    """A workflow that polls often, with a log of ten labelled predictions."""
    folder = log_folder(str(tmp_path), "w")
    folder.mkdir(parents=True)
    with open(folder / "0001-a.jsonl", "wb") as file:
        for i in range(10):
            at = START + timedelta(hours=i)
            file.write(to_line(Prediction(id=f"{i}", time=at, version="1", features={}, scores=(0.3,))))
            file.write(to_line(Outcome(id=f"{i}", time=at, label="yes")))
    return Workflow(
        name="w",
        task="binary",
        spine=SpineSettings(path="s.csv", label="y"),
        monitor=MonitorSettings(poll_s=0.02),
        stores=StoreSettings(root=str(tmp_path)),
    )


def test_two_actors_come_to_the_same_state(workflow):
    """What one knew the next folds again."""
    first, second = (MonitorActor(workflow, REFERENCES, METRIC) for _ in range(2))
    assert first.evidence("1") == second.evidence("1")
    assert (first.counts()["labelled"], first.watermark()) == (10, START + timedelta(hours=9))
    first.stop()
    second.stop()


def test_an_unreachable_registry_is_asked_again(workflow):
    """The rows wait for it."""
    actor = MonitorActor(workflow, AwayOnce(), METRIC)
    deadline = time.monotonic() + 10
    while not actor.evidence("1") and time.monotonic() < deadline:
        actor.watermark()
    actor.stop()
    assert actor.evidence("1")[0].rows == 10
    assert actor.error() == ""


def told(actor):
    """What an actor answers, once it has read the log."""
    found = actor.evidence("1"), actor.watermark(), actor.counts(), actor.error()
    actor.stop()
    return found


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after each reading that brought something."""
    monkeypatch.setattr("raywf.monitor.actor._SAVE_BYTES", 1)
    monkeypatch.setattr("raywf.monitor.actor._SAVE_SHARE", 1e9)


def first_answer(workflow):
    """Let a monitor read the log and write its checkpoint; return what it told and the log's segment."""
    segment = log_folder(workflow.stores.root, workflow.name) / "0001-a.jsonl"
    before = told(MonitorActor(workflow, REFERENCES, METRIC))
    assert (segment.parent / "fold" / "checkpoint.json").exists()
    return before, segment


def test_a_restarted_monitor_reads_only_what_is_new(workflow, often):
    """What it has read it does not look at again: it may be anything."""
    before, segment = first_answer(workflow)
    segment.write_bytes(b"x" * segment.stat().st_size)
    assert told(MonitorActor(workflow, REFERENCES, METRIC)) == before
    with open(segment, "ab") as file:
        file.write(to_line(Outcome(id="9", time=START + timedelta(days=1), label="no")))
    _, watermark, counts, _ = told(MonitorActor(workflow, REFERENCES, METRIC))
    assert (watermark, counts["corrupt_lines"]) == (START + timedelta(days=1), 0)


def test_a_damaged_checkpoint_is_told_once_and_left_aside(workflow, often, caplog):
    """The log is folded from its start."""
    before, segment = first_answer(workflow)
    (segment.parent / "fold" / "checkpoint.json").write_bytes(b"{}")
    assert told(MonitorActor(workflow, REFERENCES, METRIC)) == before
    assert [r.message for r in caplog.records if "left aside" in r.message] == [caplog.records[0].message]


def test_a_checkpoint_that_cannot_be_written_is_no_harm(workflow, often, caplog):
    """It is told, and the monitor goes on."""
    (log_folder(workflow.stores.root, workflow.name) / "fold").write_bytes(b"")
    assert told(MonitorActor(workflow, REFERENCES, METRIC))[2]["labelled"] == 10
    assert "cannot be written" in caplog.text
