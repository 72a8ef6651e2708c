"""Fits the calibration of an ensemble on its out-of-fold scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from raywf.core.metrics import log_losses
from raywf.models.calibration import Calibration

_FEWEST_ROWS = 200


Array = NDArray[np.float64]


def fit_calibration(
    labels: Array,
    scores: Array,
    *,
    rows: NDArray[np.int64] | None = None,
    weights: Array | None = None,
) -> Calibration | None:
    """Return the calibration that the scores need, or None where it does not help.

    It has to lower the log-loss on rows that it was not fitted on. `rows` says which row each score is of,
    where a row may have several. `weights` are those of the fits: probabilities of rows that count as they
    did there, classes that were balanced included.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    place = np.arange(len(labels)) if rows is None else np.unique(rows, return_inverse=True)[1]
    if len(labels) == 0 or place.max() + 1 < _FEWEST_ROWS:
        return None
    half = place % 2 == 0
    gain = 0.0
    for part in (half, ~half):
        fitted, rest = _fit(labels[part], scores[part], weights[part]), (labels[~part], weights[~part])
        gain += _loss(scores[~part], *rest) - _loss(fitted.apply(scores[~part]), *rest)
    return _fit(labels, scores, weights) if gain > 1e-4 else None


def _loss(scores: Array, labels: Array, weights: Array) -> float:
    return float(np.average(log_losses(labels, scores), weights=weights))


def _fit(labels: Array, scores: Array, weights: Array) -> Calibration:
    binary = scores.shape[1] == 1

    def loss(theta: Array) -> float:
        slope = float(np.exp(theta[0]))
        shift = float(theta[1]) if binary else 0.0
        return _loss(Calibration(slope=slope, shift=shift).apply(scores), labels, weights)

    found = minimize(loss, np.zeros(2 if binary else 1), method="Nelder-Mead", options={"maxiter": 120})
    return Calibration(slope=float(np.exp(found.x[0])), shift=float(found.x[1]) if binary else 0.0)
