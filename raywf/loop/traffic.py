"""How many rows a workflow predicted, hour by hour, by the times in its log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from raywf.core.clock import from_microseconds, to_microseconds
from raywf.outcomes.columns import parse_columns
from raywf.outcomes.reader import LogReader, read_lines

MAX_LOG_BYTES = 2_000_000_000  # about a minute's reading
_BLOCK_BYTES = 16_000_000
_HOUR = timedelta(hours=1) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Predictions by the hour (UTC) in which they were made; hours without any are left out.

    `problem` says why they were not counted.
    """

    hours: dict[datetime, int]
    problem: str = ""

    @property
    def predictions(self) -> int | None:
        """All of them, or None where they were not counted."""
        return None if self.problem else sum(self.hours.values())


def count_traffic(
    root: str, workflow: str, start: datetime, end: datetime, *, max_bytes: int = MAX_LOG_BYTES
) -> Traffic:
    """Return the predictions between two instants; a log of more than `max_bytes` is not read."""
    try:
        reader = LogReader(root, workflow)
        paths = [path for path in reader.unread({}) if path.stat().st_mtime >= start.timestamp()]
        size = sum(path.stat().st_size for path in paths)
        if size > max_bytes:
            return Traffic(hours={}, problem=f"the log has {size / 1e9:.1f} GB; its rows were not counted")
        first, last = to_microseconds(start), to_microseconds(end)
        hours: Counter[int] = Counter()
        for path in paths:
            at = 0
            while data := read_lines(path, at, _BLOCK_BYTES):
                at += len(data)
                for answers in parse_columns(data).answers:
                    times = answers.times[(answers.times >= first) & (answers.times < last)]
                    found, counts = np.unique(times // _HOUR, return_counts=True)
                    hours.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    except OSError as err:
        return Traffic(hours={}, problem=f"the log cannot be read: {err}")
    return Traffic(hours={from_microseconds(hour * _HOUR): count for hour, count in sorted(hours.items())})
