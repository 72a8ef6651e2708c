"""Sketches the columns of a table, or of a part of one; sketches of parts are merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raywf.core.records import Column, ColumnKind
from raywf.core.sketch import (
    POINTS,
    CategorySketch,
    Floats,
    Ints,
    NumberSketch,
    Sketch,
    add_up,
    list_categories,
)
from raywf.snapshots.convert import is_text, native_kind, scan_text, to_category, to_number, to_time
from raywf.snapshots.plan import NUMBER_SHARE
from raywf.snapshots.profile import DAY_US

Bounds = Mapping[str, tuple[float, float]]


def sketch_table(
    table: pa.Table, columns: Iterable[Column], *, bounds: Bounds | None = None
) -> tuple[Sketch, ...]:
    """Sketch each column; numbers that are not finite count as missing.

    `bounds` are the least and greatest values expected of a column: rows beyond them are counted.
    """
    given = bounds or {}
    return tuple(sketch_column(table.column(c.name), c, bounds=given.get(c.name)) for c in columns)


def sketch_column(
    values: pa.ChunkedArray, column: Column, *, bounds: tuple[float, float] | None = None
) -> Sketch:
    """Sketch one column of any type as one of the kind; what is not of the kind counts as missing."""
    if column.kind == "category":
        return _sketch_text(values, column.name)
    ordered = _ordered(values, column.kind)
    missing = len(values) - len(ordered)
    outside = (0, 0)
    if bounds is not None and len(ordered):
        below = int(np.searchsorted(ordered, bounds[0], side="left"))
        outside = below, len(ordered) - int(np.searchsorted(ordered, bounds[1], side="right"))
    points, counts, error = _few(ordered)
    return NumberSketch(
        name=column.name,
        kind=column.kind,
        rows=len(values),
        missing=missing,
        points=points,
        counts=counts,
        low=float(ordered[0]) if len(ordered) else float("nan"),
        high=float(ordered[-1]) if len(ordered) else float("nan"),
        rank_error=error,
        bounds=bounds,
        outside=outside,
    )


def find_kind(values: pa.ChunkedArray) -> ColumnKind | None:
    """Return what a column holds, as snapshots decide it; None for lists, structures and bytes."""
    if not is_text(values.type):
        return native_kind(values.type)
    seen = scan_text(values)
    if seen.filled == 0 or seen.flags == seen.filled:
        return "category"
    if seen.times == seen.filled:
        return "time"
    return "number" if seen.numbers >= NUMBER_SHARE * seen.filled else "category"


def _few(ordered: Floats) -> tuple[Floats, Ints, float]:
    """Return points and counts of ascending values, and by how much a rank is wrong."""
    rows = len(ordered)
    if rows == 0:
        return np.array([]), np.array([], dtype=np.int64), 0.0
    distinct = 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))
    if distinct <= POINTS:
        begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        return ordered[begins].astype(np.float64), np.diff(np.append(begins, rows)), 0.0
    places = np.maximum(np.ceil((np.arange(POINTS) + 0.5) * rows / POINTS), 1).astype(np.int64) - 1
    points, counts = add_up(ordered[places], np.diff(np.arange(POINTS + 1) * rows // POINTS))
    return points.astype(np.float64), counts, 0.5 / POINTS


def _ordered(values: pa.ChunkedArray, kind: ColumnKind) -> Floats:
    """Return the finite values in ascending order."""
    if kind == "time":
        instants = pc.cast(to_time(values), pa.int64()).drop_null().to_numpy()
        return np.sort(np.asarray(instants / float(DAY_US), dtype=np.float64))
    plain = pa.types.is_floating(values.type) or pa.types.is_integer(values.type)
    numbers = values.to_numpy() if plain else to_number(values).to_numpy()
    ordered = np.sort(numbers)  # missing values come last
    if ordered.dtype.kind != "f":
        return ordered
    begin = np.searchsorted(ordered, -np.inf, side="right")
    found = ordered[begin : np.searchsorted(ordered, np.inf, side="left")]
    found[np.searchsorted(found, 0, side="left") : np.searchsorted(found, 0, side="right")] = 0  # none is -0
    return found


def _sketch_text(values: pa.ChunkedArray, name: str) -> CategorySketch:
    total: dict[str, int] = {}
    for chunk in values.chunks:
        distinct, counts = _counted(chunk)
        texts = to_category(pa.chunked_array([distinct])).to_pylist()
        for text, count in zip(texts, counts, strict=True):
            if text is not None and count:
                total[text] = total.get(text, 0) + count
    return list_categories(name, total, rows=len(values), missing=len(values) - sum(total.values()))


def _counted(chunk: pa.Array) -> tuple[pa.Array, list[int]]:
    """Return a chunk's distinct values and their rows."""
    if pa.types.is_dictionary(chunk.type):
        codes = chunk.indices.drop_null().to_numpy()
        return chunk.dictionary, np.bincount(codes, minlength=len(chunk.dictionary)).tolist()
    counted = chunk.value_counts()
    return counted.field("values"), counted.field("counts").to_pylist()
