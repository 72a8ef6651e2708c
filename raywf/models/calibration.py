"""Smooth calibration of an ensemble's scores: logistic for two classes, one temperature for more.

Fitted on out-of-fold scores. Smooth functions over binning, after CalArena (arXiv 2605.30188) and Guo et al.
(ICML 2017); kept only where it lowers the log-loss on rows it was not fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from raywf.core.metrics import log_loss
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


def fit_calibration(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> Calibration | None:
    """Return the calibration that the scores need, or None where it does not help out of sample."""
    if len(labels) < 200:
        return None
    half = np.arange(len(labels)) % 2 == 0
    gain = 0.0
    for part in (half, ~half):
        fitted = _fit(labels[part], scores[part])
        gain += log_loss(labels[~part], scores[~part]) - log_loss(labels[~part], fitted.apply(scores[~part]))
    return _fit(labels, scores) if gain > 1e-4 else None


def _fit(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> Calibration:
    binary = scores.shape[1] == 1

    def loss(theta: NDArray[np.float64]) -> float:
        slope = float(np.exp(theta[0]))
        shift = float(theta[1]) if binary else 0.0
        return log_loss(labels, Calibration(slope=slope, shift=shift).apply(scores))

    found = minimize(loss, np.zeros(2 if binary else 1), method="Nelder-Mead", options={"maxiter": 120})
    return Calibration(slope=float(np.exp(found.x[0])), shift=float(found.x[1]) if binary else 0.0)
