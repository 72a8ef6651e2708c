"""Metrics on plain arrays, each with its direction, and the bounded loss that sequential tests rest on.

Scores have shape ``(n_rows, k)``: ``k = 1`` for binary (probability of the positive class) and regression
(the value), the number of classes for multiclass. Labels are class indices or values, shape ``(n_rows,)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_EPS = 1e-7


@dataclass(frozen=True, slots=True)
class Metric:
    """A named score with its direction; `loss` turns it so that less is better."""

    name: str
    greater_is_better: bool
    tasks: tuple[str, ...]
    score: Callable[[Array, Array], float]

    def loss(self, labels: Array, scores: Array) -> float:
        """Return the score, negated where greater is better."""
        value = self.score(labels, scores)
        return -value if self.greater_is_better else value


def roc_auc(labels: Array, scores: Array) -> float:
    """Return the area under the ROC curve, ties counted half; nan with one class only.

    >>> roc_auc(np.array([0, 0, 1, 1.0]), np.array([[0.1], [0.4], [0.35], [0.8]]))
    0.75
    """
    values = scores[:, -1]
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    first = np.r_[True, ranked[1:] != ranked[:-1]]
    group = np.cumsum(first) - 1
    counts = np.bincount(group)
    ends = np.cumsum(counts)
    mean_rank = ends - (counts - 1) / 2
    positive = labels[order] > 0.5
    n_pos = int(positive.sum())
    n_neg = len(labels) - n_pos
    if n_pos == 0 or n_neg == 0:
        return float("nan")
    return float((mean_rank[group][positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def average_precision(labels: Array, scores: Array) -> float:
    """Return the mean precision over the positives' thresholds; nan without positives."""
    order = np.argsort(-scores[:, -1], kind="stable")
    hits = labels[order] > 0.5
    values = scores[order, -1]
    last = np.r_[values[1:] != values[:-1], True]
    true = np.cumsum(hits)[last]
    precision = true / (np.flatnonzero(last) + 1)
    if true[-1] == 0:
        return float("nan")
    return float(np.sum(np.diff(np.r_[0, true]) * precision) / true[-1])


def class_probabilities(scores: Array) -> Array:
    """Return scores as ``(n_rows, n_classes)``: a binary column becomes two.

    >>> class_probabilities(np.array([[0.25]]))
    array([[0.75, 0.25]])
    """
    return np.hstack([1 - scores, scores]) if scores.shape[1] == 1 else scores


def log_loss(labels: Array, scores: Array) -> float:
    """Return the mean negative log-likelihood, in nats."""
    p = np.clip(class_probabilities(scores), _EPS, 1)
    p = p / p.sum(axis=1, keepdims=True)
    return float(-np.log(p[np.arange(len(labels)), labels.astype(int)]).mean())


def accuracy(labels: Array, scores: Array) -> float:
    """Return the share of rows whose likeliest class is right."""
    return float((class_probabilities(scores).argmax(axis=1) == labels.astype(int)).mean())


def brier(labels: Array, scores: Array) -> float:
    """Return the mean bounded loss of a classification, in [0, 1]."""
    return float(bounded_loss(labels, scores, scale=None).mean())


def rmse(labels: Array, scores: Array) -> float:
    """Return the root mean squared error."""
    return float(np.sqrt(np.mean((labels - scores[:, 0]) ** 2)))


def mae(labels: Array, scores: Array) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(labels - scores[:, 0])))


def r2(labels: Array, scores: Array) -> float:
    """Return the share of variance explained; nan for constant labels."""
    total = float(np.sum((labels - labels.mean()) ** 2))
    return 1 - float(np.sum((labels - scores[:, 0]) ** 2)) / total if total > 0 else float("nan")


def bounded_loss(labels: Array, scores: Array, *, scale: float | None) -> Array:
    """Return each row's loss in [0, 1]: half the squared distance of the class probabilities (Brier), or,
    with a `scale` in label units, the absolute error over the scale, cut at 1.

    >>> bounded_loss(np.array([1.0]), np.array([[0.8]]), scale=None).round(3)
    array([0.04])
    """
    if scale is not None:
        return np.minimum(np.abs(labels - scores[:, 0]) / scale, 1.0)
    p = class_probabilities(scores)
    hot = np.zeros_like(p)
    hot[np.arange(len(labels)), labels.astype(int)] = 1
    return np.asarray(0.5 * ((p - hot) ** 2).sum(axis=1))


def loss_scale(labels: Array) -> float:
    """Return the error that counts as wholly wrong: the 99th percentile of the distance to the median."""
    return float(np.quantile(np.abs(labels - np.median(labels)), 0.99)) or 1.0


_CLASSES = ("binary", "multiclass")
METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("roc_auc", True, ("binary",), roc_auc),
        Metric("average_precision", True, ("binary",), average_precision),
        Metric("log_loss", False, _CLASSES, log_loss),
        Metric("brier", False, _CLASSES, brier),
        Metric("accuracy", True, _CLASSES, accuracy),
        Metric("rmse", False, ("regression",), rmse),
        Metric("mae", False, ("regression",), mae),
        Metric("r2", True, ("regression",), r2),
    )
}
