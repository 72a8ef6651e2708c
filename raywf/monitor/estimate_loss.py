"""Estimates a regression's loss without labels, by what its rows' features and predictions tell of it.

Direct loss estimation: a model of the loss, fitted on labelled rows that the regression was not fitted on.
The model is additive over bins, a table a feature, boosted a stump at a time: the monitor holds each row's
bins already, tables need no library of trees and no file beside the state, and beyond the last edge they
stay level where trees of raw values would have seen nothing either. What it cannot tell is interactions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from raywf.core.metrics import Array, find_metric, pinball_losses
from raywf.monitor.drift import Codes
from raywf.monitor.estimate import Estimate

_Z = 1.959963984540054
_EPS = 1e-7
_BINS = 20  # of the prediction
_ROUNDS, _RATE = 100, 0.15
_SMOOTH = 20.0  # rows of no effect that each side of a split is thought to have besides
_LEAST_ROWS = 100
_FOLDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEstimator:
    """Estimates a metric of a regression; made of labelled rows that the model was not fitted on.

    A row's loss is `base` and what `tables` have for each of its bins: the prediction's, cut at `edges`, then
    the features'. `ratio` is the deviation of a loss as a share of what is expected, `variance` the relative
    one that the fitted rows, being few, add.
    """

    metric: str
    base: float
    tables: tuple[tuple[float, ...], ...]
    edges: tuple[float, ...]
    least: float
    ratio: float
    variance: float

    def losses(self, codes: Codes, scores: Array) -> Array:
        """Return each row's expected loss; `codes` have shape ``(n_rows, n_features)``."""
        held = _with_prediction(codes, scores, np.asarray(self.edges))
        found = self.base + sum(np.asarray(t)[held[:, i]] for i, t in enumerate(self.tables))
        return np.maximum(found, self.least)

    def estimate(self, codes: Codes, scores: Array) -> Estimate | None:
        """Return what is to be expected of these rows; None of no rows."""
        if len(scores) == 0:
            return None
        losses = self.losses(codes, scores)
        mean = float(losses.mean())
        variance = self.ratio**2 * float((losses**2).sum()) / len(losses) ** 2 + self.variance * mean**2
        value, error = mean, float(np.sqrt(variance))
        if self.metric == "rmse":
            value = float(np.sqrt(mean))
            error = error / (2 * value) if value > 0 else 0.0
        low, high = max(0.0, value - _Z * error), value + _Z * error
        return Estimate(metric=self.metric, value=value, low=low, high=high, rows=len(losses))


def fit_loss_estimator(metric: str, labels: Array, scores: Array, codes: Codes) -> LossEstimator | None:
    """Return an estimator by rows whose labels are known; None of a metric that is not estimated.

    `codes` are the features' bins, as the monitor has them (`raywf.monitor.drift.bin_values`). The number of
    rounds is the best of three contiguous folds; below 100 rows, or where no table helps, the estimate is the
    mean loss.
    """
    if not can_estimate_loss(metric):
        return None
    return _fit(metric, _row_losses(metric)(labels, scores), scores, codes)


def fit_bounded_estimator(losses: Array, scores: Array, codes: Codes) -> LossEstimator | None:
    """Return an estimator of the mean bounded loss, by the rows' losses."""
    return _fit("bounded_loss", losses, scores, codes)


def _fit(metric: str, losses: Array, scores: Array, codes: Codes) -> LossEstimator | None:
    if len(losses) == 0:
        return None
    edges = np.unique(np.quantile(scores[:, 0], np.arange(1, _BINS) / _BINS))
    held = _with_prediction(codes, scores, edges)
    rounds, apart = 0, losses - losses.mean()
    if len(losses) >= _LEAST_ROWS:
        rounds, apart = _best_rounds(held, losses)
    tables = np.zeros((held.shape[1], 256))
    for step in _boost(held, losses - losses.mean(), rounds):
        tables += step
    ratio = float(np.sqrt(np.mean(apart**2))) / max(float(losses.mean()), _EPS)
    return LossEstimator(
        metric=metric,
        base=float(losses.mean()),
        tables=tuple(tuple(map(float, table)) for table in tables),
        edges=tuple(map(float, edges)),
        least=float(np.quantile(losses, 0.01)) / 2,
        ratio=ratio,
        variance=ratio**2 / len(losses),
    )


def can_estimate_loss(metric: str) -> bool:
    """Return whether a regression's metric is estimated: means of rows' losses, and the root of one."""
    found = find_metric(metric)
    return metric in _LOSSES or (found is not None and metric.startswith("quantile_"))


def _row_losses(metric: str) -> Callable[[Array, Array], Array]:
    if metric in _LOSSES:
        return _LOSSES[metric]
    found = find_metric(metric)
    assert found is not None
    assert found.quantile is not None
    return partial(pinball_losses, quantile=found.quantile)


def _absolute(labels: Array, scores: Array) -> Array:
    return np.asarray(np.abs(labels - scores[:, 0]))


def _squared(labels: Array, scores: Array) -> Array:
    return np.asarray((labels - scores[:, 0]) ** 2)


def _relative(labels: Array, scores: Array) -> Array:
    return np.asarray(np.abs(labels - scores[:, 0]) / np.maximum(np.abs(labels), _EPS))


_LOSSES = {"mae": _absolute, "rmse": _squared, "mape": _relative}


def _with_prediction(codes: Codes, scores: Array, edges: Array) -> Codes:
    first = np.searchsorted(edges, scores[:, 0], side="left").astype(np.uint8)
    return np.concatenate([first[:, None], codes], axis=1)


def _boost(codes: Codes, target: Array, rounds: int) -> list[Array]:
    """Return a step a round, which is added to the tables ``(n_columns, 256)``: one column's best split."""
    left = target.copy()
    steps = []
    rows = np.stack([np.bincount(column, minlength=256) for column in codes.T]).astype(np.float64)
    for _ in range(rounds):
        sums: Array = np.stack([np.bincount(column, weights=left, minlength=256) for column in codes.T])
        step = _RATE * _best_split(sums, rows)
        steps.append(step)
        left -= sum(step[i][codes[:, i]] for i in np.flatnonzero(step.any(axis=1)))
    return steps


def _best_split(sums: Array, rows: Array) -> Array:
    """Return the step that lowers the squares most: a column's bins in the order of their means, cut in two.

    In this order a cut is the best one of categories too (Fisher, 1958).
    """
    order = np.argsort(sums / (rows + _SMOOTH), axis=1)
    below, held = (
        np.cumsum(np.take_along_axis(sums, order, 1), 1),
        np.cumsum(np.take_along_axis(rows, order, 1), 1),
    )
    above, rest = below[:, -1:] - below, held[:, -1:] - held
    gains = below**2 / (held + _SMOOTH) + above**2 / (rest + _SMOOTH)
    column, cut = np.unravel_index(int(gains.argmax()), gains.shape)
    step = np.zeros_like(sums)
    low = order[column, : cut + 1]
    step[column] = above[column, cut] / (rest[column, cut] + _SMOOTH)
    step[column, low] = below[column, cut] / (held[column, cut] + _SMOOTH)
    step[column, rows[column] == 0] = 0.0
    return step


def _best_rounds(codes: Codes, losses: Array) -> tuple[int, Array]:
    """Return the number of rounds that is best for rows that were not fitted, and those rows' errors then."""
    folds = np.arange(len(losses)) * _FOLDS // len(losses)
    errors = np.empty((_ROUNDS + 1, len(losses)))
    for fold in range(_FOLDS):
        fit, held = folds != fold, np.flatnonzero(folds == fold)
        mean = losses[fit].mean()
        errors[0, held] = losses[held] - mean
        for i, step in enumerate(_boost(codes[fit], losses[fit] - mean, _ROUNDS), start=1):
            moved = sum(step[j][codes[held, j]] for j in np.flatnonzero(step.any(axis=1)))
            errors[i, held] = errors[i - 1, held] - moved
    best = int((errors**2).mean(axis=1).argmin())
    return best, errors[best]
