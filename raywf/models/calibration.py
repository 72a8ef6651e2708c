"""Smooth calibration of an ensemble's scores: logistic for two classes, one temperature for more.

Smooth functions over binning, after CalArena (arXiv 2605.30188) and Guo et al. (ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raywf.models.design import sigmoid, softmax, through_softmax

_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """``sigmoid(slope * logit(p) + shift)`` for a binary column, ``softmax(slope * log p)`` for several."""

    slope: float = 1.0
    shift: float = 0.0

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated scores of the same shape."""
        p = np.clip(scores, _EPS, 1 - _EPS)
        if p.shape[1] == 1:
            return sigmoid(self.slope * np.log(p / (1 - p)) + self.shift)
        return softmax(self.slope * np.log(p))

    def moved(self, scores: NDArray[np.float64], moves: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how calibrated scores move where scores ``(n, k)`` do by small `moves` ``(n, m, k)``."""
        within = (scores > _EPS) & (scores < 1 - _EPS)
        p = np.clip(scores, _EPS, 1 - _EPS)
        found = self.apply(scores)
        if p.shape[1] == 1:
            slope = self.slope * found * (1 - found) / (p * (1 - p))
            return np.asarray(moves * (within * slope)[:, None])
        logs = self.slope * moves * (within / p)[:, None]
        return through_softmax(found, logs)
