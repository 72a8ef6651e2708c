"""Estimates a classifier's metric without labels, and follows how wrong such estimates turn out to be.

Confidence-based performance estimation: where scores are calibrated, a row's score tells how likely each of
its labels is, and so what a metric is to be expected of the rows (NannyML's CBPE; Kivimaeki et al., 2024,
arXiv 2407.08649). It feels that inputs moved, and does not feel that labels mean something else: the estimate
is worth what its past errors say, which `judge_estimates` sums up once labels are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from raywf.core.metrics import Array, bounded_loss, class_probabilities, find_metric

_Z = 1.959963984540054
_EPS = 1e-7
_LEAST_ROWS = 200  # to calibrate by
_STEP = 1e-3  # of a numeric derivative
_PENALTY = 1.0  # of a row's weight: holds the calibration near the scores as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric as it is to be expected of rows without labels, and a 95 % interval of what it will be."""

    metric: str
    value: float
    low: float
    high: float
    rows: int

    @property
    def error(self) -> float:
        """The standard error that the interval is made of."""
        return (self.high - self.low) / (2 * _Z)


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateError:
    """How estimates of past windows turned out: the estimate less what labels gave.

    `bias` is the mean, `mean_absolute` that of its size, `covered` the share of windows within their
    interval. `spread` is the root of the mean square of what the intervals do not account for.
    """

    windows: int
    bias: float
    mean_absolute: float
    covered: float
    spread: float

    def settle(self, estimate: Estimate) -> Estimate:
        """Return the estimate less the bias so far (half of it after one window), as wide as errors were."""
        value = estimate.value - self.bias * self.windows / (self.windows + 1)
        half = _Z * float(np.sqrt(estimate.error**2 + self.spread**2))
        return replace(estimate, value=value, low=value - half, high=value + half)


def judge_estimates(past: Sequence[tuple[Estimate, float]]) -> EstimateError | None:
    """Sum up windows, each with its estimate and the metric by its labels; None of none.

    Of a stream whose labels come to mean something else the last few windows tell more than all do.
    """
    if not past:
        return None
    errors = np.array([estimate.value - found for estimate, found in past])
    known = np.array([estimate.error for estimate, _ in past])
    return EstimateError(
        windows=len(past),
        bias=float(errors.mean()),
        mean_absolute=float(np.abs(errors).mean()),
        covered=float(np.mean([estimate.low <= found <= estimate.high for estimate, found in past])),
        spread=float(np.sqrt(max(0.0, np.mean(errors**2 - known**2)))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEstimator:
    """Estimates a metric of a classifier; made of labelled rows that the model was not fitted on.

    Class probabilities are ``softmax(exp(theta[0]) * log p + theta[1:])``. `covariance` says how surely the
    rows tell `theta`, which an estimate's interval allows for: more so where inputs are not as those rows.
    """

    metric: str
    threshold: float
    theta: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def probabilities(self, scores: Array) -> Array:
        """Return how likely each class is, shape ``(n_rows, n_classes)``."""
        return _calibrated(np.asarray(self.theta), _logs(scores))

    def estimate(self, scores: Array) -> Estimate | None:
        """Return what is to be expected of rows with these scores ``(n_rows, k)``; None of no rows."""
        if len(scores) == 0:
            return None
        logs, theta = _logs(scores), np.asarray(self.theta)

        def expected(at: Array) -> tuple[float, float]:
            return _expected(self.metric, scores, _calibrated(at, logs), self.threshold)

        value, variance = expected(theta)
        if not np.isfinite(value):
            return None
        steps = np.eye(len(theta)) * _STEP
        slopes = np.array([expected(theta + s)[0] - expected(theta - s)[0] for s in steps]) / (2 * _STEP)
        half = _Z * float(np.sqrt(variance + slopes @ np.asarray(self.covariance) @ slopes))
        return Estimate(
            metric=self.metric, value=value, low=value - half, high=value + half, rows=len(scores)
        )


def fit_class_estimator(
    metric: str, labels: Array, scores: Array, *, threshold: float = 0.5
) -> ClassEstimator | None:
    """Return an estimator by rows whose labels are known; None of a metric that is not estimated.

    Below 200 rows the scores are taken as they are, and the interval is as wide as that is unsure.
    """
    if not can_estimate(metric, scores.shape[1]) or len(labels) == 0:
        return None
    logs = _logs(scores)
    theta = np.zeros(logs.shape[1] + 1)
    if len(labels) >= _LEAST_ROWS:
        theta = _calibrate(labels, logs)
    covariance = np.linalg.inv(_curvature(theta, logs))
    return ClassEstimator(
        metric=metric,
        threshold=threshold,
        theta=tuple(map(float, theta)),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
    )


def can_estimate(metric: str, columns: int) -> bool:
    """Return whether a classification metric is estimated, of scores with so many columns."""
    if metric in _BY_ROW:
        return True
    found = find_metric(metric)
    return columns == 1 and (metric == "roc_auc" or (found is not None and found.counted is not None))


def expected_auc(scores: Array, positive: Array) -> tuple[float, float]:
    """Return the area under the ROC curve to be expected, and its variance, shapes ``(n_rows,)``.

    The share of pairs of rows that are in order, each by how likely it is one of a positive and a negative.
    The variance is that of the labels, by the delta method.

    >>> value, _ = expected_auc(np.array([0.2, 0.7, 0.9]), np.array([0.0, 1.0, 1.0]))
    >>> value
    1.0
    """
    _, group = np.unique(scores, return_inverse=True)
    negative = 1 - positive
    held_positive, held_negative = np.bincount(group, positive), np.bincount(group, negative)
    above = (held_positive.sum() - np.cumsum(held_positive))[group]
    below = (np.cumsum(held_negative) - held_negative)[group]
    won = below + 0.5 * (held_negative[group] - negative)  # by the row, were it positive
    lost = above + 0.5 * (held_positive[group] - positive)  # to it, were it negative
    total_positive, total_negative = positive.sum(), negative.sum()
    pairs = total_positive * total_negative - positive @ negative
    if pairs <= 0:
        return float("nan"), float("nan")
    value = float(positive @ won / pairs)
    more = (total_negative - negative) - (total_positive - positive)
    slopes = (won - lost - value * more) / pairs
    return value, float((positive * negative) @ slopes**2)


def _expected(metric: str, scores: Array, likely: Array, threshold: float) -> tuple[float, float]:
    """Return a metric to be expected and its variance, where classes are as likely as this."""
    if metric == "roc_auc":
        return expected_auc(scores[:, 0], likely[:, 1])
    found = find_metric(metric)
    if scores.shape[1] == 1 and found is not None and found.counted is not None:
        return _expected_counts(found.counted, scores[:, 0] >= threshold, likely[:, 1])
    losses = _BY_ROW[metric](scores)
    means = (likely * losses).sum(axis=1)
    variances = (likely * losses**2).sum(axis=1) - means**2
    return float(means.mean()), float(variances.sum() / len(means) ** 2)


def _expected_counts(
    counted: Callable[..., float], said: NDArray[np.bool_], likely: Array
) -> tuple[float, float]:
    """Return a metric of the confusion matrix that is to be expected; the variance by the delta method."""
    true, positives = float(likely[said].sum()), float(likely.sum())
    false, negatives = float(said.sum()) - true, len(likely) - positives
    value = float(counted(true, false, positives, negatives))
    step = min(1.0, positives, negatives) / 2
    if step <= 0:
        return value, 0.0
    variance = 0.0
    for chosen, hit in ((likely[said], step), (likely[~said], 0.0)):
        moved = float(counted(true + hit, false - hit, positives + step, negatives - step))
        variance += float((chosen * (1 - chosen)).sum()) * ((moved - value) / step) ** 2
    return value, variance


def _log_losses(scores: Array) -> Array:
    p = np.clip(class_probabilities(scores), _EPS, 1)
    return np.asarray(-np.log(p / p.sum(axis=1, keepdims=True)))


def _briers(scores: Array) -> Array:
    classes = class_probabilities(scores).shape[1]
    return np.stack(
        [bounded_loss(np.full(len(scores), c, float), scores, scale=None) for c in range(classes)], axis=1
    )


def _hits(scores: Array) -> Array:
    p = class_probabilities(scores)
    return np.asarray(np.eye(p.shape[1])[p.argmax(axis=1)])


# a row's figure under each label it may have, shape (n_rows, n_classes)
_BY_ROW: dict[str, Callable[[Array], Array]] = {"log_loss": _log_losses, "brier": _briers, "accuracy": _hits}


def _calibrate(labels: Array, logs: Array) -> Array:
    """Return the theta under which the labels are likeliest, held near 0: the scores as they are."""
    hot = np.eye(logs.shape[1])[labels.astype(int)]

    def loss(theta: Array) -> tuple[float, Array]:
        p = _calibrated(theta, logs)
        wrong = p - hot
        value = -np.log(np.maximum(p[hot > 0], _EPS)).sum() + _PENALTY * float(theta @ theta)
        slopes = np.r_[np.exp(theta[0]) * (wrong * logs).sum(), wrong.sum(axis=0)] + 2 * _PENALTY * theta
        return value / len(labels), slopes / len(labels)

    return np.asarray(minimize(loss, np.zeros(logs.shape[1] + 1), jac=True, method="BFGS").x)


def _curvature(theta: Array, logs: Array) -> Array:
    """Return the Hessian of the labels' expected log-likelihood, penalty included: what rows tell."""
    p = _calibrated(theta, logs)
    raised = np.exp(theta[0]) * logs
    apart = p * (raised - (p * raised).sum(axis=1, keepdims=True))
    found = 2 * _PENALTY * np.eye(len(theta))
    found[0, 0] += (apart * raised).sum()
    found[0, 1:] += apart.sum(axis=0)
    found[1:, 0] += apart.sum(axis=0)
    found[1:, 1:] += np.diag(p.sum(axis=0)) - p.T @ p
    return found


def _calibrated(theta: Array, logs: Array) -> Array:
    logits = np.exp(theta[0]) * logs + theta[1:]
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _logs(scores: Array) -> Array:
    return np.asarray(np.log(np.clip(class_probabilities(scores), _EPS, 1)))
