"""How answers and labels were spread where a version was judged, to see how far they have moved since."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raywf.core.metrics import Array
from raywf.core.settings import MonitorSettings

_BINS, _BIN_ROWS = 10, 100  # with fewer rows in each, chance alone makes the index large


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The rows in each bin; bin i holds ``edges[i-1] < x <= edges[i]``.

    >>> Histogram.of(np.repeat([0.0, 1.0, 3.0], 200))
    Histogram(edges=(0.5, 2.0), counts=(200, 200, 200))
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @staticmethod
    def of(values: Array) -> Histogram | None:
        """Return that of numbers; None of too few rows.

        There is a bin for each number where they are few, else bins of like mass. Edges lie between two
        numbers: another fit of the same model, whose scores differ by little, moves none over them.
        """
        bins = min(_BINS, len(values) // _BIN_ROWS)
        if bins < 2:
            return None
        known = np.unique(values)
        below = known[:-1]
        if len(known) > bins:
            inner = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
            inner = np.unique(inner[inner < known[-1]])
            below = inner if len(inner) else known[-2:-1]
        edges = (below + known[np.searchsorted(known, below) + 1]) / 2
        counts = tuple(map(int, _counts(values, edges)))
        return Histogram(edges=tuple(map(float, edges)), counts=counts)

    def count(self, values: Array) -> NDArray[np.int64]:
        """Return how many other numbers lie in each bin, shape ``(n_bins,)``."""
        return _counts(values, np.asarray(self.edges))


def telling(
    labels: Array, scores: Array, whole: NDArray[np.bool_], *, settings: MonitorSettings
) -> tuple[Array, Array]:
    """Return the answers and the labels of a window's rows that an index may rest on; none of too few.

    `labels` is nan where there is none, `whole` says which rows have all scores. The first labels of a window
    are often of one kind, and are waited for.
    """
    known, least = whole & ~np.isnan(labels), max(1, settings.min_labelled)
    enough = known.sum() >= max(least, settings.labelled_share * len(labels))
    return answered(scores[whole & (whole.sum() >= least)]), labels[known & enough]


def answered(scores: Array) -> Array:
    """Return what rows were answered, by scores ``(n_rows, k)``: the one score, or the likeliest class."""
    return scores[:, 0] if scores.shape[1] == 1 else scores.argmax(axis=1).astype(np.float64)


def _counts(values: Array, edges: Array) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
