"""How answers and labels were spread where a version was judged, to see how far they have moved since."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raywf.core.metrics import Array
from raywf.monitor.drift import stability_index

_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The rows in each bin; bin i holds ``edges[i-1] < x <= edges[i]``.

    >>> Histogram.of(np.array([0.0, 0.0, 1.0, 2.0]))
    Histogram(edges=(0.0, 1.0), counts=(2, 1, 1))
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @staticmethod
    def of(values: Array) -> Histogram:
        """Return that of numbers: a bin for each where they are few, else bins of like mass."""
        known = np.unique(values)
        if len(known) > _BINS:
            inner = np.quantile(values, np.arange(1, _BINS) / _BINS, method="inverted_cdf")
            known = np.unique([*inner[inner < values.max()], values.max()])
        edges = known[:-1]
        return Histogram(edges=tuple(map(float, edges)), counts=_counts(values, edges))

    def psi(self, values: Array) -> float:
        """Return the population stability index of other numbers beside these; 0 of none."""
        live = _counts(values, np.asarray(self.edges))
        return stability_index(np.asarray(self.counts), np.asarray(live))


def answered(scores: Array) -> Array:
    """Return what rows were answered, by scores ``(n_rows, k)``: the one score, or the likeliest class."""
    return scores[:, 0] if scores.shape[1] == 1 else scores.argmax(axis=1).astype(np.float64)


def _counts(values: Array, edges: Array) -> tuple[int, ...]:
    places = np.searchsorted(edges, values, side="left")
    return tuple(map(int, np.bincount(places, minlength=len(edges) + 1)))
