"""Sketches of columns, small whatever the rows: parts of a table are sketched apart, and sketches merged.

A sketch is exact while a column has few distinct values: then a merged sketch is that of all rows at once.
Beyond that, ranks of numbers are known to within `rank_error`, counts of categories to within `floor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raywf.core.records import ColumnProfile

POINTS = 1024
CATEGORIES = 1000
BINS = 10
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NumberSketch:
    """A column of numbers, or of instants as days since the epoch.

    `points` ascend, each once, and stand for `counts` rows, at most `POINTS` of them. A rank read off them is
    wrong by at most `rank_error` of the rows. `low` and `high` are the least and the greatest value (nan if
    there is none). `outside` counts the rows below and above `bounds`, where such were given.
    """

    name: str
    kind: Literal["number", "time"]
    rows: int
    missing: int
    points: Floats
    counts: Ints
    low: float
    high: float
    rank_error: float = 0.0
    bounds: tuple[float, float] | None = None
    outside: tuple[int, int] = (0, 0)

    @property
    def filled(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    def profile(self) -> ColumnProfile:
        """Return the bins of like mass that drift is measured by."""
        if not self.filled:
            return ColumnProfile(name=self.name, kind=self.kind, counts=(0,), missing=self.missing)
        ranks = np.arange(1, BINS) * self.filled / BINS
        inner = self.points[np.searchsorted(np.cumsum(self.counts), ranks, side="left")]
        edges = np.unique(inner[inner < self.points[-1]])
        return ColumnProfile(
            name=self.name,
            kind=self.kind,
            edges=tuple(map(float, edges)),
            counts=tuple(map(int, self.binned(edges))),
            missing=self.missing,
        )

    def binned(self, edges: Sequence[float] | Floats) -> Ints:
        """Return the rows in each of the bins that these inner edges make, shape ``(len(edges) + 1,)``."""
        places = np.searchsorted(np.asarray(edges), self.points, side="left")
        return np.bincount(places, weights=self.counts, minlength=len(edges) + 1).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CategorySketch:
    """A column of categories: the commonest `values`, at most `CATEGORIES`, and their rows, most first.

    `other` counts the rows of all values that are not listed, of which none has more than `floor`; a listed
    value's count may lack as many.
    """

    name: str
    kind: Literal["category"] = "category"
    rows: int
    missing: int
    values: tuple[str, ...]
    counts: Ints
    other: int = 0
    floor: int = 0

    @property
    def filled(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    def profile(self) -> ColumnProfile:
        """Return the listed values and their rows, with one more entry for all others."""
        return ColumnProfile(
            name=self.name,
            kind="category",
            values=self.values,
            counts=(*map(int, self.counts), self.other),
            missing=self.missing,
        )


Sketch = NumberSketch | CategorySketch


def merge_sketches(parts: Sequence[Sketch]) -> Sketch:
    """Return the sketch of all parts' rows, whatever their order: one column's, of one kind, at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, NumberSketch):
        return _merge_numbers([p for p in parts if isinstance(p, NumberSketch)])
    return _merge_categories([p for p in parts if isinstance(p, CategorySketch)])


def thin(points: Floats, counts: Ints, *, most: int = POINTS) -> tuple[Floats, Ints]:
    """Return at most so many points that stand for the rows of all, wrong in rank by half a point's share.

    >>> points, counts = thin(np.arange(8.0), np.ones(8, np.int64), most=4)
    >>> points.tolist(), counts.tolist()
    ([0.0, 2.0, 4.0, 6.0], [2, 2, 2, 2])
    """
    rows = int(counts.sum())
    ranks = np.maximum((np.arange(most) + 0.5) * rows / most, 1.0)
    chosen = points[np.searchsorted(np.cumsum(counts), ranks, side="left")]
    shares = np.diff(np.arange(most + 1) * rows // most)
    return add_up(chosen, shares)


def add_up(points: Floats, counts: Ints) -> tuple[Floats, Ints]:
    """Return ascending points each once, with the rows of all their like."""
    begins = np.flatnonzero(np.concatenate([[True], points[1:] != points[:-1]]))
    return points[begins], np.add.reduceat(counts, begins)


class Merger:
    """Merges a column's sketches as they come, holding few of them; like ones are merged with like.

    A part goes through as many merges as the logarithm of their number, and its error grows as slowly.
    """

    _EACH = 8

    def __init__(self) -> None:
        self._levels: list[list[Sketch]] = []

    def add(self, sketch: Sketch, *, level: int = 0) -> None:
        """Take in one part."""
        if level == len(self._levels):
            self._levels.append([])
        held = self._levels[level]
        held.append(sketch)
        if len(held) == self._EACH:
            self._levels[level] = []
            self.add(merge_sketches(held), level=level + 1)

    def merged(self) -> Sketch:
        """Return the sketch of all parts, of which there must be one."""
        return merge_sketches([sketch for held in self._levels for sketch in held])


def _merge_numbers(parts: Sequence[NumberSketch]) -> NumberSketch:
    points, counts = np.concatenate([p.points for p in parts]), np.concatenate([p.counts for p in parts])
    filled = sum(p.filled for p in parts)
    error = sum(p.rank_error * p.filled for p in parts) / max(filled, 1)
    if len(points):
        order = np.argsort(points, kind="stable")
        points, counts = add_up(points[order], counts[order])
    if len(points) > POINTS:
        points, counts = thin(points, counts)
        error += 0.5 / POINTS
    full = [p for p in parts if p.filled]
    return NumberSketch(
        name=parts[0].name,
        kind=parts[0].kind,
        rows=sum(p.rows for p in parts),
        missing=sum(p.missing for p in parts),
        points=points,
        counts=counts,
        low=min((p.low for p in full), default=float("nan")),
        high=max((p.high for p in full), default=float("nan")),
        rank_error=error,
        bounds=parts[0].bounds,
        outside=(sum(p.outside[0] for p in parts), sum(p.outside[1] for p in parts)),
    )


def _merge_categories(parts: Sequence[CategorySketch]) -> CategorySketch:
    total: dict[str, int] = {}
    for part in parts:
        for value, count in zip(part.values, part.counts.tolist(), strict=True):
            total[value] = total.get(value, 0) + count
    return list_categories(
        parts[0].name,
        total,
        rows=sum(p.rows for p in parts),
        missing=sum(p.missing for p in parts),
        floor=sum(p.floor for p in parts),
    )


def list_categories(
    name: str, total: dict[str, int], *, rows: int, missing: int, floor: int = 0
) -> CategorySketch:
    """Return the sketch of a column whose values have so many rows; `floor` is what each may lack."""
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    listed, rest = ordered[:CATEGORIES], ordered[CATEGORIES:]
    return CategorySketch(
        name=name,
        rows=rows,
        missing=missing,
        values=tuple(value for value, _ in listed),
        counts=np.array([count for _, count in listed], dtype=np.int64),
        other=rows - missing - sum(count for _, count in listed),
        floor=floor + (rest[0][1] if rest else 0),
    )
