"""Rows of the fold's table in files that are written once and checked when they are read."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raywf.core.ids import digest_bytes
from raywf.monitor.key_index import RowNumbers
from raywf.monitor.rows import Rows

FILE_ROWS = 500_000
_COLUMNS = ("keys", "times", "known", "kinds", "numbers", "values")
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows lie: in which file, from which of its rows on, and how many."""

    file: str
    start: int
    rows: int


@dataclass(slots=True)
class RowFiles:
    """Files of rows (Arrow IPC) in a folder; `digests` are those that are relied on, by name."""

    folder: Path
    digests: dict[str, str] = field(default_factory=dict)

    def write(self, table: Rows, groups: Sequence[RowNumbers]) -> list[Place]:
        """Write groups of rows, each into one file, and return their places.

        Raises:
            OSError: if the disk refuses.
        """
        places: list[Place] = []
        batch: list[RowNumbers] = []
        for i, rows in enumerate(groups):
            batch.append(rows)
            if sum(map(len, batch)) >= FILE_ROWS or i == len(groups) - 1:
                name, start = self._write(table, np.concatenate(batch)), 0
                for part in batch:
                    places.append(Place(name, start, len(part)))
                    start += len(part)
                batch = []
        return places

    def read(self, places: Sequence[Place], windows: Sequence[int]) -> tuple[Rows, list[int]]:
        """Return a table with the rows of each place, of one window each, and the first row of each.

        Raises:
            OSError, ValueError: if a file is not there, or is not the one that was written.
        """
        counts = [place.rows for place in places]
        firsts = [0, *np.cumsum(counts, dtype=np.int64).tolist()]
        table = Rows()
        rows = table.claim(sum(counts))
        table.windows[rows] = np.repeat(np.array(windows, dtype=np.int32), counts)
        by_file: dict[str, list[tuple[int, Place]]] = {}
        for first, place in zip(firsts, places, strict=False):
            by_file.setdefault(place.file, []).append((first, place))
        for name, parts in by_file.items():
            stored = self._read(name)
            score = sum(column.startswith("score_") for column in stored)
            table.widen(scores=score, codes=len(stored) - len(_COLUMNS) - score)
            for column, values in stored.items():
                target = _column(table, column)
                for first, place in parts:
                    target[first : first + place.rows] = values[place.start : place.start + place.rows]
        table.index.add(table.keys[rows], rows, table.keys)
        return table, firsts[:-1]

    def _write(self, table: Rows, rows: RowNumbers) -> str:
        names = [*_COLUMNS, *(f"score_{i}" for i in range(len(table.scores)))]
        names += [f"code_{i}" for i in range(len(table.codes))]
        batch = pa.RecordBatch.from_pydict({name: pa.array(_column(table, name)[rows]) for name in names})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema, options=_OPTIONS) as file:
            file.write_batch(batch)
        data, name = sink.getvalue().to_pybytes(), f"{len(rows)}-{uuid.uuid4().hex}.arrow"
        (self.folder / name).write_bytes(data)
        self.digests[name] = digest_bytes(data)
        return name

    def _read(self, name: str) -> dict[str, Any]:
        data = (self.folder / name).read_bytes()
        if digest_bytes(data) != self.digests[name]:
            raise ValueError(f"{name} is damaged")
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        return {column: table.column(column).to_numpy() for column in table.column_names}


def rows_in(name: str) -> int:
    """Return how many rows a file has, by its name."""
    return int(name.partition("-")[0])


def _column(table: Rows, name: str) -> Any:
    kind, _, place = name.partition("_")
    if kind == "score":
        return table.scores[int(place)]
    return table.codes[int(place)] if kind == "code" else getattr(table, name)
