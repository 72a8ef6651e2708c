"""Compares two sketches of a column: effect sizes, and how likely they are by chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogorov
from scipy.stats import false_discovery_control

from raywf.core.drift import ColumnDrift
from raywf.core.sketch import CategorySketch, NumberSketch, Sketch
from raywf.monitor.distance import both_p, chi_square, js_distance, missing_p, stability_index

Shares = NDArray[np.float64]


def compare_sketches(reference: Sketch, current: Sketch) -> ColumnDrift:
    """Compare one column with what it was; `q` is `p` until `control` sees all columns.

    Raises:
        TypeError: if they are of different kinds.
    """
    if isinstance(reference, NumberSketch) and isinstance(current, NumberSketch):
        shape = _numbers(reference, current)
    elif isinstance(reference, CategorySketch) and isinstance(current, CategorySketch):
        shape = _categories(reference, current)
    else:
        raise TypeError(f"{reference.name!r} is of kind {reference.kind}, not {current.kind}")
    gaps = missing_p((reference.missing, reference.filled), (current.missing, current.filled))
    p = both_p(shape.p, *gaps)
    before, after = _share(reference.missing, reference.rows), _share(current.missing, current.rows)
    return ColumnDrift(
        column=reference.name,
        kind=reference.kind,
        effect=max(shape.js, abs(after - before), shape.unknown or 0.0, shape.outside),
        reference_rows=reference.rows,
        rows=current.rows,
        psi=shape.psi,
        js=shape.js,
        distance=shape.distance,
        test="ks" if isinstance(reference, NumberSketch) else "chi2",
        statistic=shape.statistic,
        p=p,
        q=p,
        reference_missing=before,
        missing=after,
        unknown=shape.unknown,
        outside=shape.outside,
    )


def control(found: Iterable[ColumnDrift]) -> tuple[ColumnDrift, ...]:
    """Set each column's `q` (Benjamini and Hochberg, 1995), and put the greatest effect first."""
    columns = tuple(found)
    if not columns:
        return ()
    rates = false_discovery_control([c.p for c in columns])
    settled = (replace(c, q=float(q)) for c, q in zip(columns, rates, strict=True))
    return tuple(sorted(settled, key=lambda c: (-c.effect, c.column)))


class _Shape(NamedTuple):
    """What the values that are there tell."""

    psi: float
    js: float
    distance: float | None
    statistic: float
    p: float
    unknown: float | None
    outside: float


def _numbers(reference: NumberSketch, current: NumberSketch) -> _Shape:
    profile = reference.profile()
    trained, live = np.asarray(profile.counts), current.binned(profile.edges)
    if not reference.filled or not current.filled:
        return _Shape(0.0, 0.0, 0.0, 0.0, 1.0, None, 0.0)
    points = np.union1d(reference.points, current.points)
    before, after = _distribution(reference, points), _distribution(current, points)
    gap = np.abs(before - after)
    apart = float(np.sum(gap[:-1] * np.diff(points)))
    statistic = float(gap.max())
    sure = max(0.0, statistic - reference.rank_error - current.rank_error)
    scale = np.sqrt(reference.filled / (1 + reference.filled / current.filled))
    below, above = _outside(reference, current)
    within = live.copy()
    within[0] -= below
    within[-1] -= above
    parted = np.concatenate([[below], np.maximum(within, 0), [above]])
    return _Shape(
        psi=stability_index(trained, live),
        js=js_distance(np.pad(trained, 1), parted),
        distance=apart / (_spread(reference) or _spread(current) or apart or 1.0),
        statistic=statistic,
        p=float(kolmogorov(scale * sure)),
        unknown=None,
        outside=(below + above) / current.filled,
    )


def _distribution(sketch: NumberSketch, points: Shares) -> Shares:
    """Return the share of rows that are at most each point."""
    below = np.concatenate([[0], np.cumsum(sketch.counts)])
    return below[np.searchsorted(sketch.points, points, side="right")] / sketch.filled


def _spread(sketch: NumberSketch) -> float:
    """Return the standard deviation, of the points: a few extreme values are not felt."""
    mean = np.average(sketch.points, weights=sketch.counts)
    return float(np.sqrt(np.average((sketch.points - mean) ** 2, weights=sketch.counts)))


def _outside(reference: NumberSketch, current: NumberSketch) -> tuple[int, int]:
    """Return the rows below and above the reference's range: counted, if the sketch was told the range."""
    if current.bounds == (reference.low, reference.high):
        return current.outside
    below = int(current.counts[current.points < reference.low].sum())
    above = int(current.counts[current.points > reference.high].sum())
    return max(below, int(current.low < reference.low)), max(above, int(current.high > reference.high))


def _categories(reference: CategorySketch, current: CategorySketch) -> _Shape:
    """Compare the reference's listed values, and all others as one."""
    found = dict(zip(current.values, current.counts.tolist(), strict=True))
    listed = np.array([found.get(value, 0) for value in reference.values], dtype=np.int64)
    rest = current.filled - int(listed.sum())
    trained = np.append(reference.counts, reference.other)
    live = np.append(listed, rest)
    known = slice(None) if reference.other else slice(-1)  # the monitor's index leaves unknown values out
    statistic, p = chi_square(trained, live)
    return _Shape(
        psi=stability_index(trained[known], live[known]),
        js=js_distance(trained, live),
        distance=None,
        statistic=statistic,
        p=p,
        unknown=None if reference.other or not reference.filled else _share(rest, current.filled),
        outside=0.0,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
