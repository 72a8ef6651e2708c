"""Bins live values as the training profile does, and measures how far the bins' shares moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from raywf.core.category import category_text, spellings
from raywf.core.clock import format_time, parse_time
from raywf.core.records import ColumnProfile, Drift
from raywf.monitor.distance import (
    Counts,
    both_p,
    chi_square,
    js_distance,
    missing_p,
    rank_distance,
    stability_index,
)

Codes = NDArray[np.uint8]
MISSING = 255
_DAY_S = 86_400.0


def bin_values(values: Sequence[Any], profile: ColumnProfile) -> Codes:
    """Return each value's bin in the profile, or 255 if it is missing; shape ``(n_rows,)``.

    A category that is not listed has the bin after the last, whether training held it or not.
    """
    if profile.kind == "category":
        other, index = len(profile.values), spellings(profile.values)
        return np.array(_categories(values, index, other), dtype=np.uint8)
    numbers = _days(values) if profile.kind == "time" else _numbers(values)
    bins = np.searchsorted(np.asarray(profile.edges), numbers, side="left")
    return np.where(np.isfinite(numbers), bins, MISSING).astype(np.uint8)


def as_text(value: object) -> str:
    """Write a class or category as snapshots do: flags as true/false, whole numbers without a point.

    >>> [as_text(v) for v in (True, 1, 1.0, 1.5, " a ")]
    ['true', '1', '1', '1.5', 'a']
    """
    return category_text(value).strip()


def bin_names(profile: ColumnProfile) -> tuple[str, ...]:
    """Name the bins that `bin_values` tells apart, missing values last.

    >>> bin_names(ColumnProfile(name="x", kind="number", edges=(0.0, 2.5), counts=(3, 3, 3)))
    ('at most 0', 'above 0, at most 2.5', 'above 2.5', 'missing')
    >>> bin_names(ColumnProfile(name="x", kind="number", edges=(-1.0, 0.0, 2.5), counts=(0, 3, 3, 0)))
    ('below -1', '-1 to 0', 'above 0, at most 2.5', 'above 2.5', 'missing')
    """
    if profile.kind == "category":
        return (*profile.values, "new" if profile.is_listed else "another", "missing")
    edges = list(profile.edges)
    if (
        profile.has_range
    ):  # the first one lies just below the least value, and prints as no number of the data
        edges[0] = float(np.nextafter(edges[0], np.inf)) + 0.0
    texts = [_day_text(edge) if profile.kind == "time" else f"{edge:g}" for edge in edges]
    if not texts:
        return ("known", "missing")
    between = [f"above {low}, at most {high}" for low, high in pairwise(texts)]
    if profile.has_range:
        first = f"{texts[0]} to {texts[1]}"
        return (f"below {texts[0]}", first, *between[1:], f"above {texts[-1]}", "missing")
    return (f"at most {texts[0]}", *between, f"above {texts[-1]}", "missing")


def _day_text(days: float) -> str:
    return format_time(datetime.fromtimestamp(days * _DAY_S, UTC))


def measure_drift(codes: Codes, profile: ColumnProfile) -> Drift:
    """Compare one window's bins with training, as `compare_bins` does."""
    trained = np.append(profile.counts, profile.missing)
    return _compare(trained, codes, profile, missing_before=profile.missing / max(1, int(trained.sum())))


def compare_codes(before: Codes, after: Codes, profile: ColumnProfile) -> Drift:
    """Compare one window's bins with another's, as `compare_bins` does."""
    return _compare(bin_counts(before, profile), after, profile, missing_before=_share(before == MISSING))


def _compare(before: Counts, codes: Codes, profile: ColumnProfile, *, missing_before: float) -> Drift:
    """Compare, and tell what is missing and what is new apart."""
    ordered = profile.kind != "category"
    found = compare_bins(profile.name, before, bin_counts(codes, profile), ordered=ordered)
    unlike = None
    if profile.is_listed or profile.has_range:
        unlike = _share(as_in_training(codes, profile) != codes)
    return replace(found, missing=_share(codes == MISSING), missing_before=missing_before, unlike=unlike)


def _share(marked: NDArray[np.bool_]) -> float:
    return float(marked.mean()) if len(marked) else 0.0


def compare_bins(column: str, before: Counts, after: Counts, *, ordered: bool) -> Drift:
    """Compare rows by bin with those of before, the last bin being missing and unknown values.

    They are a bin too: a feature that dies has moved. `q` is the p of both looks, at the values that are
    there and at what is missing, until `control_drift` sees all columns.
    """
    rows = int(after.sum())
    gaps = missing_p(*((int(of[-1]), int(of[:-1].sum())) for of in (before, after)))
    return Drift(
        column=column,
        psi=stability_index(before, after),
        rows=rows,
        missing=float(after[-1] / rows) if rows else 0.0,
        js=js_distance(before, after),
        q=both_p(chi_square(before[:-1], after[:-1])[1], *gaps),
        distance=rank_distance(before[:-1], after[:-1]) if ordered else None,
    )


def control_drift(found: Sequence[Drift]) -> tuple[Drift, ...]:
    """Set each column's `q` (Benjamini and Hochberg, 1995)."""
    if not found:
        return ()
    rates = false_discovery_control([1.0 if one.q is None else one.q for one in found])
    return tuple(replace(one, q=float(q)) for one, q in zip(found, rates, strict=True))


def bin_counts(codes: Codes, profile: ColumnProfile) -> NDArray[np.int64]:
    """Return the rows in each bin that training may have, and last those that are missing or unknown."""
    known = as_in_training(codes, profile)
    filled = known[known != MISSING]
    live = np.bincount(filled, minlength=len(profile.counts))[: len(profile.counts)]
    return np.append(live, len(codes) - len(filled))


def as_in_training(codes: Codes, profile: ColumnProfile) -> Codes:
    """Return the bins with those that no row of training had as one that some may have.

    What lies beyond the range is in the bin next to it, and what is new is missing.
    """
    last = len(profile.counts) - 1
    if profile.has_range:
        return np.where(codes == MISSING, codes, np.clip(codes, 1, last - 1)).astype(np.uint8)
    return np.where(codes == last, MISSING, codes).astype(np.uint8) if profile.is_listed else codes


def unlike_training(codes: Codes, profile: ColumnProfile) -> NDArray[np.bool_]:
    """Return which values training had not: beyond its range, new, or missing where it always had one."""
    known = np.full(len(codes), MISSING) if profile.is_empty else as_in_training(codes, profile)
    odd: NDArray[np.bool_] = (known != codes) | ((codes == MISSING) & (profile.missing == 0))
    return odd


def _categories(values: Sequence[Any], index: dict[str, int], other: int) -> list[int]:
    found: list[Any]
    try:
        found = list(map({name: i for name, i in index.items() if name}.get, values))
    except TypeError:  # a value that is no text, flag or number
        found = [None] * len(values)
    texts: dict[str, int] = {}  # that training did not hold
    for at in [at for at, code in enumerate(found) if code is None] if None in found else ():
        value = values[at]
        code = texts.get(value) if type(value) is str else None
        found[at] = code if code is not None else _category(value, index, other)
        if type(value) is str:
            texts[value] = found[at]
    return found


def _category(value: object, index: dict[str, int], other: int) -> int:
    if value is None or value == "":
        return MISSING
    code = index.get(value) if isinstance(value, str) else None
    return index.get(as_text(value), other) if code is None else code


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _days(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([_day(value) for value in values], dtype=np.float64)


def _day(value: Any) -> float:
    try:
        instant = value if isinstance(value, datetime) else parse_time(value)
    except (TypeError, ValueError):
        return math.nan
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() / _DAY_S
