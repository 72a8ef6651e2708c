"""Smooth calibration of an ensemble's scores: logistic for two classes, one temperature for more.

Smooth functions over binning, after CalArena (arXiv 2605.30188) and Guo et al. (ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raywf.models.design import sigmoid, softmax

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
