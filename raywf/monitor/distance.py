"""How far two histograms over the same bins lie from one another, and how likely that is by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

Counts = NDArray[np.int64]
_SMOOTH = 0.5
_LEAST_EXPECTED = 5.0  # rows in a cell of a chi-square table


def stability_index(trained: Counts, live: Counts) -> float:
    """Return the population stability index of two histograms over the same bins; 0 if one has no rows.

    Half a row is added to each bin that either has. 0.1 is commonly taken as a small shift and 0.25 as a
    large one (Siddiqi, Credit Risk Scorecards, 2006); with few rows the index is large by chance, about
    (bins - 1) / rows.
    """
    used = (trained > 0) | (live > 0)
    trained, live = trained[used], live[used]
    if live.sum() == 0 or trained.sum() == 0:
        return 0.0
    p = (trained + _SMOOTH) / (trained.sum() + _SMOOTH * len(trained))
    q = (live + _SMOOTH) / (live.sum() + _SMOOTH * len(live))
    return float(np.sum((q - p) * np.log(q / p)))


def js_distance(trained: Counts, live: Counts) -> float:
    """Return the Jensen-Shannon distance (base 2) of two histograms: 0 if they are alike, 1 if disjoint.

    >>> js_distance(np.array([1, 1]), np.array([3, 3])), js_distance(np.array([9, 0]), np.array([0, 1]))
    (0.0, 1.0)
    """
    if trained.sum() == 0 or live.sum() == 0:
        return 0.0
    p, q = trained / trained.sum(), live / live.sum()
    middle = (p + q) / 2
    both = sum(float(np.sum(one[one > 0] * np.log2(one[one > 0] / middle[one > 0]))) for one in (p, q))
    return float(np.sqrt(min(1.0, max(0.0, both / 2))))


def chi_square(trained: Counts, live: Counts) -> tuple[float, float]:
    """Return Cramer's V of two samples over bins, and the test's p; rare bins go with the next ones."""
    table = np.stack([trained, live]).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    rows = table.sum(axis=1, keepdims=True)
    total = float(rows.sum())
    if rows.min() == 0:
        return 0.0, 1.0
    table = np.add.reduceat(table, _cuts(table.sum(axis=0) * rows.min() / total), axis=1)
    expected = rows * table.sum(axis=0, keepdims=True) / total
    square = float(np.sum((table - expected) ** 2 / expected))
    freedom = table.shape[1] - 1
    return float(np.sqrt(square / total)), float(chdtrc(freedom, square)) if freedom else 1.0


def _cuts(expected: NDArray[np.float64]) -> list[int]:
    """Return where runs of bins begin that expect rows enough; what is left at the end is in the last run."""
    cuts, held = [0], 0.0
    for i, one in enumerate(expected.tolist()):
        if held >= _LEAST_EXPECTED:
            cuts.append(i)
            held = 0.0
        held += one
    return cuts if held >= _LEAST_EXPECTED or len(cuts) == 1 else cuts[:-1]
