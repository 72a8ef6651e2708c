"""A feature's sketch: quantile bins of numbers, counts of categories; what drift is measured against."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raywf.core.records import Column, ColumnProfile

BINS = 10
TOP = 50
DAY_US = 86_400_000_000


def profile_table(table: pa.Table, columns: Iterable[Column]) -> tuple[ColumnProfile, ...]:
    """Profile each feature; times are profiled as days since the epoch."""
    return tuple(profile_column(table.column(column.name), column) for column in columns)


def profile_column(values: pa.ChunkedArray, column: Column) -> ColumnProfile:
    """Profile one feature, of text for a category, else of numbers or instants.

    Numbers below and above all of these have bins of their own; that instants are later is as it should be.
    """
    if column.kind == "category":
        return _profile_text(values, column)
    if column.kind == "time":
        values = pc.divide(pc.cast(pc.cast(values, pa.int64()), pa.float64()), float(DAY_US))
    numbers = values.drop_null().to_numpy()
    missing = len(values) - len(numbers)
    if len(numbers) == 0:
        return ColumnProfile(name=column.name, kind=column.kind, counts=(0,), missing=missing)
    inner = np.quantile(numbers, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = np.unique(inner[inner < numbers.max()])
    if column.kind == "number":
        below = np.nan_to_num(np.nextafter(numbers.min(), -np.inf))  # JSON has no infinity
        edges = np.array([below, *edges, numbers.max()])
    counts = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
    return ColumnProfile(
        name=column.name,
        kind=column.kind,
        edges=tuple(map(float, edges)),
        counts=tuple(map(int, counts)),
        missing=missing,
    )


def _profile_text(values: pa.ChunkedArray, column: Column) -> ColumnProfile:
    counted = [(item["counts"], item["values"]) for item in values.drop_null().value_counts().to_pylist()]
    counted.sort(key=lambda pair: (-pair[0], pair[1]))
    top, rest = counted[:TOP], counted[TOP:]
    return ColumnProfile(
        name=column.name,
        kind=column.kind,
        values=tuple(value for _, value in top),
        counts=(*(count for count, _ in top), sum(count for count, _ in rest)),
        missing=values.null_count,
    )
