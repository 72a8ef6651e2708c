"""A metric over one window with a 95 % interval."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from raywf.core.errors import describe_error
from raywf.core.metrics import Array, Metric, bounded_loss, class_probabilities, mean_ranks
from raywf.core.own import OwnScore

_log = logging.getLogger(__name__)
_Z = 1.959963984540054
_RESAMPLES, _MOST_ROWS = 200, 5_000
_told: set[str] = set()  # why metrics of the user's own had no value


def metric_interval(
    metric: Metric, labels: Array, scores: Array, *, threshold: float = 0.5
) -> tuple[float, float, float] | None:
    """Return the metric and its interval; None where it is not defined (a class is absent, rows have groups).

    One of the user's own that raises is not defined either, and its reason is logged.

    ROC AUC: DeLong's variance by ranks (Sun and Xu, 2014, doi:10.1109/LSP.2014.2337313), of many classes that
    of the sum of each row's parts in all. Means of rows: normal; the root of one by the delta method. Others:
    percentiles of 200 bootstrap resamples from a fixed seed, of at most 5,000 of the rows.
    """
    name, value = metric.name, _score(metric, labels, scores, threshold)
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
    apart = _bootstrap(metric, labels, scores, threshold)
    return None if apart is None else (value, value + apart[0], value + apart[1])


def _score(metric: Metric, labels: Array, scores: Array, threshold: float) -> float:
    """Return a metric; nan where one of the user's own raises, which the log tells once."""
    if not isinstance(metric.of, OwnScore):
        return metric.score(labels, scores, threshold=threshold)
    try:
        return metric.score(labels, scores, threshold=threshold)
    except Exception as err:  # noqa: BLE001 - the user's text may raise anything
        reason = f"metric {metric.name} has no value: {describe_error(err)}"
        if reason not in _told:
            _told.add(reason)
            _log.warning("%s (of %d rows)", reason, len(labels))
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
}


def _around(value: float, error: float) -> tuple[float, float]:
    return value - _Z * error, value + _Z * error


def _error(rows: Array) -> float:
    return float(rows.std() / np.sqrt(len(rows)))


def _auc_error(labels: Array, scores: Array) -> float:
    if scores.shape[1] <= 2:
        return _delong_error(labels, scores[:, -1])
    parts, classes = np.zeros(len(labels)), 0
    for c in range(scores.shape[1]):
        positive = labels == c
        if 0 < positive.sum() < len(labels):
            above, below = _placements(scores[positive, c], scores[~positive, c])
            parts[positive] += (above - above.mean()) / len(above)
            parts[~positive] += (below - below.mean()) / len(below)
            classes += 1
    return float(np.sqrt(np.sum(parts**2))) / classes


def _placements(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Return for each positive the share of negatives below it, for each negative that of positives above."""
    m, n = len(positive), len(negative)
    ranks = mean_ranks(np.concatenate([positive, negative]))
    return (ranks[:m] - mean_ranks(positive)) / n, 1 - (ranks[m:] - mean_ranks(negative)) / m


def _delong_error(labels: Array, scores: Array) -> float:
    positive, negative = scores[labels > 0.5], scores[labels <= 0.5]
    m, n = len(positive), len(negative)
    above, below = _placements(positive, negative)
    variance = above.var(ddof=1) / m if m > 1 else 0.25
    return float(np.sqrt(variance + (below.var(ddof=1) / n if n > 1 else 0.25)))


def _bootstrap(metric: Metric, labels: Array, scores: Array, threshold: float) -> tuple[float, float] | None:
    """Return how far below and above its value a metric lies; None where few resamples give one."""
    rng, rows = np.random.default_rng(0), len(labels)
    if rows > _MOST_ROWS:
        some = rng.choice(rows, _MOST_ROWS, replace=False)
        labels, scores = labels[some], scores[some]
    count = len(labels)
    drawn = (rng.integers(0, count, count) for _ in range(_RESAMPLES))
    values = np.array([_score(metric, labels[r], scores[r], threshold) for r in drawn])
    values = values[np.isfinite(values)]
    middle = _score(metric, labels, scores, threshold)
    if len(values) < _RESAMPLES / 2 or not np.isfinite(middle):
        return None
    low, high = (np.quantile(values, [0.025, 0.975]) - middle) * np.sqrt(count / rows)
    return float(low), float(high)
