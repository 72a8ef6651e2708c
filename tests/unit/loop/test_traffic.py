"""Predictions counted by the hour in a log that was made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.core.records import Outcome, Prediction
from raywf.loop.traffic import count_traffic
from raywf.outcomes.lines import log_folder, to_line

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Three predictions at noon, one at two o'clock, one a day before, and a label."""
    minutes = (0, 10, 59, 125, -24 * 60)
    rows = [
        Prediction(
            id=str(i), time=NOON + timedelta(minutes=m), version="1", features={"a": 1}, scores=(0.5, 0.5)
        )
        for i, m in enumerate(minutes)
    ]
    folder = log_folder(str(tmp_path), "w")
    folder.mkdir(parents=True)
    lines = [to_line(row) for row in rows] + [to_line(Outcome(id="0", time=NOON, label="x"))]
    (folder / "one.jsonl").write_bytes(b"".join(lines))
    return str(tmp_path)


def test_hours_are_counted(root: str) -> None:
    """Within the time that is asked for; labels are no predictions."""
    found = count_traffic(root, "w", NOON, NOON + DAY)
    assert found.hours == {NOON: 3, NOON + timedelta(hours=2): 1}
    assert found.predictions == 4


def test_a_large_log_is_not_read(root: str) -> None:
    """And that is said."""
    found = count_traffic(root, "w", NOON, NOON + DAY, max_bytes=10)
    assert found.predictions is None
    assert "were not counted" in found.problem


def test_no_log_is_no_traffic(tmp_path: Path) -> None:
    """A workflow that never served predicted nothing."""
    assert count_traffic(str(tmp_path), "w", NOON, NOON + DAY).predictions == 0
