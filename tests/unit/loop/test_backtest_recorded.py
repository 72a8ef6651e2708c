"""When a recorded log is decided again, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from raywf.core.records import JournalEntry
from raywf.loop.backtest.recorded import _in_order, _moments
from raywf.testing import make_decision

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def test_of_one_time_what_was_begun_first_comes_first() -> None:
    """A look and the retraining that follows from it, under the log's clock; each is decided again."""
    retrain = make_decision("a", time=START + DAY, kind="retrain")
    look = replace(retrain, id="b", kind="probe")
    later = replace(retrain, id="c", time=START + 2.5 * DAY)
    entries = [
        JournalEntry(decision_id=d.id, stage="submitted-1", time=d.time, wall_time=START + n * DAY)
        for n, d in enumerate((look, retrain, later))
    ]
    ordered = _in_order([retrain, look, later], entries)
    assert [d.id for d in ordered] == ["b", "a", "c"]
    moments = _moments(ordered, START, START + 3 * DAY)
    assert [(time - START, d and d.id) for time, d in moments] == [
        (DAY, "b"),
        (DAY, "a"),
        (2 * DAY, None),
        (2.5 * DAY, "c"),
        (3 * DAY, None),
    ]
