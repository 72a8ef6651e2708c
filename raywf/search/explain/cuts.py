"""Cuts rows into slices: one a value of a category, one a bin of a number or of an instant."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raywf.core.records import ColumnProfile, Snapshot

_BIN_ROWS = 100  # a number's bins are joined until each has about so many rows
_PERIODS = 5
_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cut:
    """One column's slices: their names, and for each row the position of its own."""

    column: str
    names: tuple[str, ...]
    places: NDArray[np.int64]


def cut_rows(snapshot: Snapshot, table: pa.Table) -> Iterator[Cut]:
    """Yield a cut of the table's rows for each profiled feature, and one by event time where there is one.

    A number's bins are those of the snapshot's profile, fewer where rows are few.
    """
    for profile in snapshot.profile:
        values = table.column(profile.name)
        if profile.kind == "category":
            yield _by_value(profile, values)
        else:
            numbers = _days(values) if profile.kind == "time" else _floats(values)
            yield _by_bin(profile.name, numbers, _thinned(profile, table.num_rows), profile.kind == "time")
    if snapshot.has_time:
        days = _days(table.column("__time"))
        edges = np.unique(np.quantile(days, np.arange(1, _PERIODS) / _PERIODS, method="inverted_cdf"))
        yield _by_bin("event time", days, edges.tolist(), True)


def _by_value(profile: ColumnProfile, values: pa.ChunkedArray) -> Cut:
    known = len(profile.values)
    texts = values.cast(pa.string())
    found = pc.fill_null(pc.index_in(texts, value_set=pa.array(profile.values, pa.string())), known)
    places = np.array(found.to_numpy(), dtype=np.int64)
    places[np.asarray(values.is_null().to_numpy())] = known + 1
    return Cut(profile.name, (*profile.values, "(other)", "(missing)"), places)


def _by_bin(name: str, numbers: NDArray[np.float64], edges: Sequence[float], dates: bool) -> Cut:
    missing = np.isnan(numbers)
    places = np.searchsorted(np.asarray(edges, dtype=np.float64), np.where(missing, 0, numbers), side="left")
    shown = [_date(e) if dates else f"{e:.6g}" for e in edges]
    names: tuple[str, ...] = ("(any)",)
    if shown:
        between = (f"({low}, {high}]" for low, high in itertools.pairwise(shown))
        names = (f"<= {shown[0]}", *between, f"> {shown[-1]}")
    return Cut(name, (*names, "(missing)"), np.where(missing, len(names), places).astype(np.int64))


def _thinned(profile: ColumnProfile, rows: int) -> tuple[float, ...]:
    edges = profile.edges[1:-1] if profile.has_range else profile.edges
    step = max(1, -(-_BIN_ROWS * (len(edges) + 1) // max(rows, 1)))
    return edges[step - 1 :: step]


def _floats(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.fill_null(values.cast(pa.float64()), float("nan")).to_numpy())


def _days(values: pa.ChunkedArray) -> NDArray[np.float64]:
    stamps = values.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).cast(pa.float64(), safe=False)
    return _floats(stamps) / _DAY_US


def _date(days: float) -> str:
    return f"{_EPOCH + timedelta(days=days):%Y-%m-%d}"
