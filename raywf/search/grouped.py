"""Which groups are scored where rows of a group are never parted, by how many rows each has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
_LEAST_SHAKEN = 0.5  # of its size: so much smaller a group may seem, that the next shuffle is another one


def share_out(sizes: Index, count: int, *, seed: int) -> Index:
    """Return each group's fold, of at least as many groups as folds, which are alike in rows.

    The largest groups come first, each to the fold with the fewest rows (Graham, 1969); their sizes are
    shaken for it, so that other seeds part them otherwise. The fold that is nearest to its share is number 0:
    that of a group which has most rows is no one's first impression.

    >>> np.bincount(share_out(np.array([70, 6, 6, 6, 6, 6]), 3, seed=0), [70, 6, 6, 6, 6, 6]).tolist()
    [18.0, 12.0, 70.0]
    """
    order = np.argsort(-sizes * np.random.default_rng(seed).uniform(_LEAST_SHAKEN, 1.0, len(sizes)))
    place, filled = np.zeros(len(sizes), np.int64), np.zeros(count)
    for group in order:
        place[group] = int(np.argmin(filled))
        filled[place[group]] += sizes[group]
    nearest = np.argsort(np.abs(filled - sizes.sum() / count), kind="stable")
    return np.asarray(np.argsort(nearest)[place])


def hold_out(sizes: Index, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Mark groups that have a share of the rows, as nearly as comes out; one at least, of two or more.

    >>> sizes = np.array([70, 6, 6, 6, 6, 6])
    >>> int(sizes[hold_out(sizes, 0.2, seed=0)].sum())
    18
    """
    wanted, total = share * sizes.sum(), 0
    held = np.zeros(len(sizes), dtype=bool)
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        if total + sizes[group] <= wanted:
            held[group] = True
            total += sizes[group]
    others = np.flatnonzero(~held)
    nearest = others[np.argmin(np.abs(total + sizes[others] - wanted))]
    if not total or abs(total + sizes[nearest] - wanted) < wanted - total:
        held[nearest] = True
    return held
