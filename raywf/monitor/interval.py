"""A metric over one window with a 95 % interval."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from raywf.core.errors import describe_error
from raywf.core.metrics import (
    Array,
    Metric,
    bounded_loss,
    class_probabilities,
    mean_ranks,
    pinball_losses,
    relative_errors,
)
from raywf.core.own import OwnScore, metric_id

_log = logging.getLogger(__name__)
_Z = 1.959963984540054
_RESAMPLES, _FEW, _QUICK_ROWS = 200, 30, 5_000  # of more rows there are fewer resamples, down to a few
_ALONE = 0.25  # the variance of a share that one row tells, at most
_told: set[tuple[str, str]] = set()  # which metrics of the user's own raised what


def metric_interval(
    metric: Metric, labels: Array, scores: Array, *, threshold: float = 0.5
) -> tuple[float, float | None, float | None] | None:
    """Return the metric and its interval; None where it is not defined (a class is absent, rows have groups).

    One of the user's own that raises is not defined either, and its reason is logged. Where half of all
    resamples have no value there is no interval.

    ROC AUC: DeLong's variance by ranks (Sun and Xu, 2014, doi:10.1109/LSP.2014.2337313), of many classes that
    of the sum of each row's parts in all. Means of rows: normal; the root of one by the delta method. Others:
    percentiles of 200 bootstrap resamples from a fixed seed; of more than 5,000 rows of fewer, as normal.
    """
    name, value = metric.name, _value(metric, labels, scores, threshold)
    if not np.isfinite(value):
        return None
    if name == "roc_auc":
        low, high = _around(value, _auc_error(labels, scores))
        return value, max(0.0, low), min(1.0, high)
    if name == "rmse":
        error = _error((labels - scores[:, 0]) ** 2) / (2 * value) if value > 0 else 0.0
        return value, *_around(value, error)
    if name in _ROWS:
        return value, *_around(value, _error(_ROWS[name](labels, scores)))
    if name.startswith("quantile_") and metric.quantile is not None:
        return value, *_around(value, _error(pinball_losses(labels, scores, metric.quantile)))
    return value, *_bootstrap(value, metric, labels, scores, threshold)


def _value(metric: Metric, labels: Array, scores: Array, threshold: float, *, quiet: bool = False) -> float:
    """Return a metric; nan where one of the user's own raises, which the log tells once a kind."""
    try:
        return metric.score(labels, scores, threshold=threshold)
    except Exception as err:  # the user's text may raise anything
        if not isinstance(metric.of, OwnScore):
            raise
        kind = metric_id(metric), type(err).__name__
        if not quiet and kind not in _told:
            _told.add(kind)
            why = describe_error(err)
            _log.warning("metric %s has no value on %d rows: %s", metric.name, len(labels), why)
        return float("nan")


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
    "mape": relative_errors,
}


def _around(value: float, error: float) -> tuple[float, float]:
    return value - _Z * error, value + _Z * error


def _error(rows: Array) -> float:
    return float(rows.std() / np.sqrt(len(rows)))


def _auc_error(labels: Array, scores: Array) -> float:
    """Return the error of one class against the other, or of the mean over the classes that have rows."""
    pairs = [(labels == c, scores[:, c]) for c in range(scores.shape[1])]
    if scores.shape[1] <= 2:
        pairs = [(labels > 0.5, scores[:, -1])]
    parts, classes, alone = np.zeros(len(labels)), 0, 0.0
    for positive, values in pairs:
        if not 0 < positive.sum() < len(labels):
            continue
        placed = _placements(values[positive], values[~positive])
        for rows, shares in zip((positive, ~positive), placed, strict=True):
            k = len(shares)
            if k > 1:
                parts[rows] += (shares - shares.mean()) / np.sqrt(k * (k - 1))
            else:
                alone += _ALONE
        classes += 1
    return float(np.sqrt(np.sum(parts**2) + alone)) / classes


def _placements(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Return for each positive the share of negatives below it, for each negative that of positives above."""
    m, n = len(positive), len(negative)
    ranks = mean_ranks(np.concatenate([positive, negative]))
    return (ranks[:m] - mean_ranks(positive)) / n, 1 - (ranks[m:] - mean_ranks(negative)) / m


def _bootstrap(
    value: float, metric: Metric, labels: Array, scores: Array, threshold: float
) -> tuple[float | None, float | None]:
    rng, count = np.random.default_rng(0), len(labels)
    wanted = int(np.clip(_RESAMPLES * _QUICK_ROWS / count, _FEW, _RESAMPLES))
    draws = (rng.integers(0, count, count) for _ in range(wanted))
    # a metric of the user's own may not bear that a class was not drawn
    values = np.array([_value(metric, labels[d], scores[d], threshold, quiet=True) for d in draws])
    found = values[np.isfinite(values)]
    if len(found) <= wanted / 2:
        return None, None
    if wanted < _RESAMPLES:
        return _around(value, float(found.std(ddof=1)))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
