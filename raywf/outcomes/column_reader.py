"""Reads the log in order from a cursor, as columns; apart from `LogReader`, for pandas is slow to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from raywf.outcomes.columns import LogColumns, parse_columns
from raywf.outcomes.reader import LogReader, read_lines

BLOCK_BYTES = 1_200_000


class ColumnReader(LogReader):
    """A `LogReader` that gives columns, too."""

    def columns(
        self, cursor: Mapping[str, int] | None = None, *, max_bytes: int
    ) -> Iterator[tuple[LogColumns, dict[str, int]]]:
        """Yield the lines after the cursor as columns, some at a time, each with the cursor after them.

        Order and bounds are those of `read`; what is yielded is small enough for a processor's cache.
        """
        after = dict(cursor or {})
        left = max_bytes
        for path in self.unread(after):
            while left > 0 and (data := read_lines(path, after.get(path.name, 0), min(left, BLOCK_BYTES))):
                found = parse_columns(data)
                self.corrupt_lines += found.corrupt
                after[path.name] = after.get(path.name, 0) + len(data)
                left -= len(data)
                yield found, dict(after)
