"""How far two histograms over the same bins lie from one another, and how likely that is by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc
from scipy.stats import hypergeom

Counts = NDArray[np.int64]
_SMOOTH = 0.5
_LEAST_EXPECTED = 5.0  # rows in a bin


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


def rank_distance(trained: Counts, live: Counts) -> float:
    """Return the Wasserstein distance of two histograms with a step between bins; 1 is from end to end.

    The ends are the outermost bins that have rows at either time.

    >>> rank_distance(np.array([0, 4, 1, 1, 0]), np.array([0, 0, 6, 0, 0]))
    0.41666666666666663
    >>> rank_distance(np.array([0, 4, 0]), np.array([0, 0, 2]))
    1.0
    """
    used = np.flatnonzero(trained + live)
    if trained.sum() == 0 or live.sum() == 0 or used[0] == used[-1]:
        return 0.0
    trained, live = trained[used[0] : used[-1] + 1], live[used[0] : used[-1] + 1]
    below = [np.cumsum(one)[:-1] / one.sum() for one in (trained, live)]
    return float(np.abs(below[0] - below[1]).sum() / (len(trained) - 1))


def chi_square(trained: Counts, live: Counts) -> tuple[float, float]:
    """Return Cramer's V of two samples over bins, and how likely they differ so by chance.

    Bins that expect too few rows for the chi-square test are taken together, a run of them after the other;
    what is left over is tested by itself, exactly, and the lower p of the two counts (Bonferroni).
    """
    table = np.stack([trained, live]).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    total = float(rows.sum())
    if rows.min() == 0 or table.shape[1] < 2:
        return 0.0, 1.0
    strength = float(np.sqrt(_square(table) / total))
    runs, left = _runs(columns * rows.min() / total)
    if table.shape[1] == 2 and len(runs) < 2:
        return strength, _exact(int(table[1, 0]), int(columns[0]), int(rows[1]), int(total))
    found = []
    if len(runs) > 1:
        together = np.stack([table[:, run].sum(axis=1) for run in runs], axis=1)
        found.append(float(chdtrc(len(runs) - 1, _square(together))))
    if left and runs:
        found.append(_exact(int(table[1, left].sum()), int(columns[left].sum()), int(rows[1]), int(total)))
    return strength, both_p(*found)


def both_p(*found: float) -> float:
    """Return the p of several looks at one thing (Bonferroni); 1 of none."""
    return min(1.0, len(found) * min(found)) if found else 1.0


def missing_p(before: tuple[int, int], after: tuple[int, int]) -> list[float]:
    """Return how likely missing rates differ so by chance; nothing if nothing is missing.

    Each is told as the rows that are missing and those that are filled.
    """
    if not before[0] and not after[0]:
        return []
    return [chi_square(np.array(before), np.array(after))[1]]


def _square(table: NDArray[np.float64]) -> float:
    """Return Pearson's statistic of a table of two rows; a row without any count tells nothing."""
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(table.sum(), 1.0)
    return float(np.sum((table - expected) ** 2 / np.where(expected > 0, expected, 1.0)))


def _exact(seen: int, marked: int, drawn: int, total: int) -> float:
    """Return how likely so many, or so few, of the `marked` rows are among those drawn (doubled)."""
    odds = hypergeom(total, marked, drawn)
    return float(min(1.0, 2 * min(odds.cdf(seen), odds.sf(seen - 1))))


def _runs(expected: NDArray[np.float64]) -> tuple[list[list[int]], list[int]]:
    """Return bins that expect rows enough, rare ones in runs that do together, and what is left over."""
    runs = [[i] for i in np.flatnonzero(expected >= _LEAST_EXPECTED).tolist()]
    held: list[int] = []
    for i in np.flatnonzero(expected < _LEAST_EXPECTED).tolist():
        held.append(i)
        if expected[held].sum() >= _LEAST_EXPECTED:
            runs.append(held)
            held = []
    return runs, held
