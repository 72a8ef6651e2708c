"""A metric over one window with a 95 % interval."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import numpy as np

from raywf.core.errors import describe_error
from raywf.core.metrics import Array, Metric, bounded_loss, class_probabilities, mean_ranks

_log = logging.getLogger(__name__)
_Z = 1.959963984540054
_RESAMPLES = 200


def metric_interval(
    metric: Metric, labels: Array, scores: Array, *, threshold: float = 0.5
) -> tuple[float, float, float] | None:
    """Return the metric and its interval; None where it is not defined (a class is absent, rows have groups).

    One of the user's own that raises is not defined either, and its reason is logged.

    ROC AUC of two classes: DeLong's variance by ranks (Sun and Xu, 2014, doi:10.1109/LSP.2014.2337313).
    Means of rows: normal; the root of one by the delta method. Others: percentiles of 200 bootstrap
    resamples from a fixed seed.
    """
    name = metric.name
    try:
        value = metric.score(labels, scores, threshold=threshold)
    except Exception as err:  # noqa: BLE001 - the user's text may raise anything
        _log.warning("metric %s has no value on %d rows: %s", name, len(labels), describe_error(err))
        return None
    if not np.isfinite(value):
        return None
    if name == "roc_auc" and scores.shape[1] <= 2:
        low, high = _around(value, _delong_error(labels, scores[:, -1]))
        return value, max(0.0, low), min(1.0, high)
    if name == "rmse":
        error = _error((labels - scores[:, 0]) ** 2) / (2 * value) if value > 0 else 0.0
        return value, *_around(value, error)
    if name in _ROWS:
        return value, *_around(value, _error(_ROWS[name](labels, scores)))
    low, high = _bootstrap(metric, labels, scores, threshold)
    return None if np.isnan(low) else (value, low, high)


def _log_losses(labels: Array, scores: Array) -> Array:
    p = np.clip(class_probabilities(scores), 1e-7, 1)
    p = p / p.sum(axis=1, keepdims=True)
    return np.asarray(-np.log(p[np.arange(len(labels)), labels.astype(int)]))


def _hits(labels: Array, scores: Array) -> Array:
    likeliest = scores[:, 0] >= 0.5 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return np.asarray(likeliest == labels.astype(int), dtype=np.float64)


def _briers(labels: Array, scores: Array) -> Array:
    return bounded_loss(labels, scores, scale=None)


def _distances(labels: Array, scores: Array) -> Array:
    return np.asarray(np.abs(labels - scores[:, 0]))


_ROWS: dict[str, Callable[[Array, Array], Array]] = {
    "log_loss": _log_losses,
    "accuracy": _hits,
    "brier": _briers,
    "mae": _distances,
}


def _around(value: float, error: float) -> tuple[float, float]:
    return value - _Z * error, value + _Z * error


def _error(rows: Array) -> float:
    return float(rows.std() / np.sqrt(len(rows)))


def _delong_error(labels: Array, scores: Array) -> float:
    positive, negative = scores[labels > 0.5], scores[labels <= 0.5]
    m, n = len(positive), len(negative)
    ranks = mean_ranks(np.concatenate([positive, negative]))
    above = (ranks[:m] - mean_ranks(positive)) / n
    below = 1 - (ranks[m:] - mean_ranks(negative)) / m
    variance = above.var(ddof=1) / m if m > 1 else 0.25
    return float(np.sqrt(variance + (below.var(ddof=1) / n if n > 1 else 0.25)))


def _bootstrap(metric: Metric, labels: Array, scores: Array, threshold: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(labels), (_RESAMPLES, len(labels)))
    values = []
    for rows in drawn:
        with contextlib.suppress(Exception):  # the user's own may not bear that a class was not drawn
            values.append(metric.score(labels[rows], scores[rows], threshold=threshold))
    found = np.asarray(values)[np.isfinite(values)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (np.nan, np.nan)
    return float(low), float(high)
