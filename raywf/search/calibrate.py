"""Fits the calibration of an ensemble on its out-of-fold scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from raywf.core.metrics import log_loss
from raywf.models.calibration import Calibration

_FEWEST_ROWS = 200


def fit_calibration(
    labels: NDArray[np.float64], scores: NDArray[np.float64], *, rows: NDArray[np.int64] | None = None
) -> Calibration | None:
    """Return the calibration that the scores need, or None where it does not help.

    It has to lower the log-loss on rows that it was not fitted on. `rows` says which row each score is of,
    where a row may have several.
    """
    place = np.arange(len(labels)) if rows is None else np.unique(rows, return_inverse=True)[1]
    if len(labels) == 0 or place.max() + 1 < _FEWEST_ROWS:
        return None
    half = place % 2 == 0
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
