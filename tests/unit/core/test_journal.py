"""The journal: each decision and each stage once, whoever writes."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.core.journal import Journal
from raywf.core.records import Decision
from raywf.testing import make_decision

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
WRITE = """
import sys
from datetime import UTC, datetime
from raywf.core.records import Decision
from raywf.core.journal import Journal
one = Decision(id="one", workflow="w", kind="retrain", cause="loss", window="x", reasons=(),
               time=datetime(2024, 1, 1, 12, tzinfo=UTC))
sys.stdin.readline()
journal = Journal(sys.argv[1], "w")
print(int(journal.decide(one)), int(journal.record(one, "submitted-1")))
"""


def decision(name: str = "one", *, hours: int = 0) -> Decision:
    return make_decision(name, window="x", reasons=("it fell",), time=NOON + timedelta(hours=hours))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(str(tmp_path), "w")


def test_a_decision_is_written_once(journal: Journal) -> None:
    """The second time is told so, and the first stays."""
    assert journal.decide(decision())
    assert not journal.decide(decision(hours=5))
    assert journal.decision("one") == decision()


def test_one_of_many_threads_writes(journal: Journal) -> None:
    """However many try at once."""
    won: list[bool] = []
    gate = threading.Barrier(8)

    def write() -> None:
        gate.wait()
        won.append(journal.record(decision(), "submitted-1"))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_one_of_two_processes_writes(journal: Journal) -> None:
    """The same holds among processes."""
    command = [sys.executable, "-c", WRITE, journal.root]
    pair = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate("go\n", timeout=60)[0].split() for process in pair]
    assert [sorted(column) for column in zip(*answers, strict=True)] == [["0", "1"], ["0", "1"]]


def test_decisions_are_sorted_by_event_time(journal: Journal) -> None:
    """Whatever the order in which they were written; equal times by id."""
    for name, hours in (("b", 2), ("z", 1), ("c", 3), ("a", 2)):
        journal.decide(decision(name, hours=hours))
    assert [d.id for d in journal.decisions()] == ["z", "a", "b", "c"]


def test_stages_keep_reasons_and_figures(journal: Journal) -> None:
    """By name, in the order of the wall's time."""
    for stage in ("submitted-1", "snapshot", "gated"):
        journal.record(decision(), stage, reasons=(stage,), figures={"rows": 3, "list": ["a"]})
    stages = journal.stages("one")
    assert list(stages) == ["submitted-1", "snapshot", "gated"]
    assert (stages["gated"].reasons, stages["gated"].figures) == (("gated",), {"rows": 3, "list": ["a"]})


def test_stages_of_similar_ids_are_apart(journal: Journal) -> None:
    """One id may begin with another."""
    journal.record(decision("one"), "gated")
    journal.record(decision("one-2"), "promoted")
    assert list(journal.stages("one")) == ["gated"]
    assert [e.decision_id for e in journal.entries()] == ["one", "one-2"]


def test_unknown_decision_is_none(journal: Journal) -> None:
    """An empty journal knows nothing."""
    assert journal.decision("one") is None
    assert (journal.decisions(), journal.entries(), journal.requests()) == ((), (), {})


def test_requests_of_one_key_are_one(journal: Journal) -> None:
    """The first reason stays; other keys, and none, are others."""
    first = journal.request("late data", key="a/../b")
    assert journal.request("again", key="a/../b") == first
    others = {journal.request("late data", key="c"), journal.request("by hand")}
    assert first not in others
    assert list(journal.requests().values()) == ["late data", "late data", "by hand"]
    assert next(iter(journal.requests())) == first


def test_requests_of_before_are_in_order(journal: Journal, tmp_path: Path) -> None:
    """Their ids alone tell when they came."""
    folder = tmp_path / "journal" / "w"
    folder.mkdir(parents=True)
    late, early = "request-20990101T000000000000", "request-20200101T000000000000"
    for name in (late, early):
        (folder / f"{name}.request.json").write_text('{"reason": "x"}')
    now = journal.request("now", key="k")
    assert list(journal.requests()) == [early, now, late]


def test_requests_are_kept(journal: Journal) -> None:
    """Each has an id of its own, in the order of asking."""
    asked = [journal.request(reason) for reason in ("why not", "again")]
    assert list(journal.requests().items()) == list(zip(asked, ["why not", "again"], strict=True))


def test_workflows_are_apart(journal: Journal) -> None:
    """Another workflow of the same store has its own."""
    journal.decide(decision())
    assert Journal(journal.root, "other").decisions() == ()
