"""Reads the log in order from a cursor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from raywf.outcomes.lines import Entry, entries_of, log_folder
from raywf.outcomes.shipping import open_mirror


class LogReader:
    """Reads a workflow's log; keeps no position of its own, the cursor is the caller's.

    `corrupt_lines` counts the lines that this reader has skipped because they could not be read. Of a log on
    an object store it reads a mirror; where the store does not answer, its methods raise an OSError.
    """

    def __init__(self, root: str, workflow: str) -> None:
        self._mirror = open_mirror(root, workflow)
        self.folder = self._mirror.folder if self._mirror else log_folder(root, workflow)
        self.corrupt_lines = 0

    def read(
        self, cursor: Mapping[str, int] | None = None, *, max_bytes: int | None = None
    ) -> tuple[tuple[Entry, ...], dict[str, int]]:
        """Return the entries after the cursor and the cursor after them.

        A cursor maps a segment's name to the bytes of it that were read. Segments come in the order of their
        names (their start times), lines in the order written. A last line without its newline is left for a
        later call. `max_bytes` bounds what one call takes in, of one segment; at least one whole line is
        read where there is one.
        """
        after = dict(cursor or {})
        entries: list[Entry] = []
        for path in self.unread(after):
            data = read_lines(path, after.get(path.name, 0), max_bytes)
            if not data:
                continue
            entries.extend(self._parse(data))
            after[path.name] = after.get(path.name, 0) + len(data)
            if max_bytes is not None:
                break
        return tuple(entries), after

    def unread_bytes(self, cursor: Mapping[str, int]) -> int:
        """Return how much the log holds beyond a cursor, a last line without its newline included."""
        sizes = ((path.name, path.stat().st_size) for path in self._segments())
        return sum(max(0, size - cursor.get(name, 0)) for name, size in sizes)

    def unread(self, cursor: Mapping[str, int]) -> Iterator[Path]:
        """Yield the segments that hold more than a cursor says, in order."""
        for path in self._segments():
            if path.stat().st_size > cursor.get(path.name, 0):
                yield path

    def _segments(self) -> list[Path]:
        if self._mirror is not None:
            self._mirror.refresh()
        return sorted(self.folder.glob("*.jsonl"))

    def _parse(self, data: bytes) -> list[Entry]:
        entries = []
        for line in data.split(b"\n")[:-1]:
            try:
                entries.extend(entries_of(line))
            except (ValueError, KeyError, TypeError):
                self.corrupt_lines += 1
        return entries


def read_lines(path: Path, start: int, max_bytes: int | None) -> bytes:
    """Return whole lines from `start`: at most `max_bytes`, but one line however long."""
    with open(path, "rb") as file:
        file.seek(start)
        if max_bytes is None:
            data = file.read()
        else:
            data = file.read(max_bytes)
            if b"\n" not in data:
                data += file.readline()
    return data[: data.rfind(b"\n") + 1]
