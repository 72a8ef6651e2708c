"""The point-in-time join's kernel: for each row, the view's row that was the latest *known* one then.

A view's row is usable from ``max(event_time, known_time)``. Among the usable rows of the same group the one
with the greatest (event_time, known_time, row order) is taken, and it counts only if its event time is no
older than `max_age`. No loop over groups: one sort, one running maximum, one binary search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raywf.core.errors import ValidationError

Int = NDArray[np.int64]
NO_ROW = -1


@dataclass(frozen=True, slots=True)
class ViewRows:
    """A view's rows in their own order: group codes >= 0 and instants in microseconds, each ``(n_rows,)``."""

    group: Int
    event: Int
    known: Int


def match_asof(group: Int, time: Int, view: ViewRows, *, max_age_us: int | None = None) -> Int:
    """Return for each row the position of the view's row to use, or -1; shape ``(n_rows,)``.

    `group` holds codes of the same coding as `view.group`; -1 (a missing key) matches nothing. `time` is in
    microseconds.
    """
    if len(view.group) == 0 or len(group) == 0:
        return np.full(len(group), NO_ROW, dtype=np.int64)
    n = len(view.group)
    usable_from = np.maximum(view.event, view.known)
    by_recency = np.lexsort((np.arange(n), view.known, view.event))
    recency = np.empty(n, dtype=np.int64)
    recency[by_recency] = np.arange(n)
    order = np.lexsort((usable_from, view.group))
    groups = view.group[order]
    best = np.maximum.accumulate(groups * n + recency[order]) - groups * n
    instants, instant = np.unique(usable_from[order], return_inverse=True)
    stride = len(instants) + 1
    seen = np.searchsorted(instants, time, side="right")
    place = np.searchsorted(groups * stride + instant + 1, group * stride + seen, side="right") - 1
    safe = np.maximum(place, 0)
    match = by_recency[best[safe]]
    good = (place >= 0) & (group >= 0) & (groups[safe] == group)
    if max_age_us is not None:
        good &= time - view.event[match] <= max_age_us
    return np.where(good, match, NO_ROW).astype(np.int64)


def match_key(group: Int, view_group: Int, *, view: str) -> Int:
    """Return for each row the position of the only view row of its group, or -1; shape ``(n_rows,)``.

    Raises:
        ValidationError: if a group occurs twice in the view.

    """
    order = np.argsort(view_group, kind="stable")
    groups = view_group[order]
    repeats = int((groups[1:] == groups[:-1]).sum())
    if repeats:
        raise ValidationError(
            f"view {view!r} has no event_time and {repeats} of its rows repeat a key; make its keys unique "
            f"or name its event_time"
        )
    if len(groups) == 0:
        return np.full(len(group), NO_ROW, dtype=np.int64)
    place = np.minimum(np.searchsorted(groups, group), len(groups) - 1)
    return np.where((groups[place] == group) & (group >= 0), order[place], NO_ROW).astype(np.int64)
