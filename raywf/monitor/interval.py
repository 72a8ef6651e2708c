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


def _value(metric: Metric, labels: Array, scores: Array, threshold: float) -> float:
    """Return a metric; nan where one of the user's own raises, which the log tells once a kind."""
    if not isinstance(metric.of, OwnScore):
        return metric.score(labels, scores, threshold=threshold)
    try:
        return metric.score(labels, scores, threshold=threshold)
    except Exception as err:  # noqa: BLE001 - the user's text may raise anything
        kind = metric_id(metric), type(err).__name__
        if kind not in _told:
            _told.add(kind)
            _log.warning(
                "metric %s has no value on %d rows: %s", metric.name, len(labels), describe_error(err)
            )
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


def _relative_distances(labels: Array, scores: Array) -> Array:
    return _distances(labels, scores) / np.maximum(np.abs(labels), 1e-7)


_ROWS: dict[str, Callable[[Array, Array], Array]] = {
    "log_loss": _log_losses,
    "accuracy": _hits,
    "brier": _briers,
    "mae": _distances,
    "mape": _relative_distances,
}


def _around(value: float, error: float) -> tuple[float, float]:
    return value - _Z * error, value + _Z * error


def _error(rows: Array) -> float:
    return float(rows.std() / np.sqrt(len(rows)))


def _auc_error(labels: Array, scores: Array) -> float:
    if scores.shape[1] <= 2:
        return _delong_error(labels, scores[:, -1])
    parts, classes, alone = np.zeros(len(labels)), 0, 0.0
    for c in range(scores.shape[1]):
        positive = labels == c
        if 0 < positive.sum() < len(labels):
            placed = _placements(scores[positive, c], scores[~positive, c])
            for rows, values in zip((positive, ~positive), placed, strict=True):
                k = len(values)
                if k > 1:
                    parts[rows] += (values - values.mean()) / np.sqrt(k * (k - 1))
                else:
                    alone += _ALONE
            classes += 1
    return float(np.sqrt(np.sum(parts**2) + alone)) / classes


def _placements(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Return for each positive the share of negatives below it, for each negative that of positives above."""
    m, n = len(positive), len(negative)
    ranks = mean_ranks(np.concatenate([positive, negative]))
    return (ranks[:m] - mean_ranks(positive)) / n, 1 - (ranks[m:] - mean_ranks(negative)) / m


def _delong_error(labels: Array, scores: Array) -> float:
    positive, negative = scores[labels > 0.5], scores[labels <= 0.5]
    m, n = len(positive), len(negative)
    above, below = _placements(positive, negative)
    variance = above.var(ddof=1) / m if m > 1 else _ALONE
    return float(np.sqrt(variance + (below.var(ddof=1) / n if n > 1 else _ALONE)))


def _bootstrap(
    value: float, metric: Metric, labels: Array, scores: Array, threshold: float
) -> tuple[float | None, float | None]:
    rng, count = np.random.default_rng(0), len(labels)
    wanted = int(np.clip(_RESAMPLES * _QUICK_ROWS / count, _FEW, _RESAMPLES))
    values = []
    for _ in range(wanted):
        drawn = rng.integers(0, count, count)
        try:
            values.append(metric.score(labels[drawn], scores[drawn], threshold=threshold))
        except Exception:  # the user's own may not bear that a class was not drawn
            if not isinstance(metric.of, OwnScore):
                raise
    found = np.array([one for one in values if np.isfinite(one)])
    if len(found) <= wanted / 2:
        return None, None
    if wanted < _RESAMPLES:
        return _around(value, float(found.std(ddof=1)))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
