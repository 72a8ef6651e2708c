"""Metrics on plain arrays, each with its direction, and the bounded loss that sequential tests rest on.

Scores have shape ``(n_rows, k)``: ``k = 1`` for binary (probability of the positive class) and regression
(the value), the number of classes for multiclass. Labels are class indices or values, shape ``(n_rows,)``.
A metric of decisions asks of two classes whether the probability reaches a threshold, of more which one is
the likeliest; a metric of groups is the mean over groups of rows, such as the answers to one query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Groups = NDArray[np.int64] | None
_EPS = 1e-7


@dataclass(frozen=True, slots=True)
class Metric:
    """A named score with its direction; `loss` turns it so that less is better.

    `of` is its function of labels and scores, and of groups where `grouped`. `counted`, of a metric of
    decisions, gives it for two classes by (true positives, false positives, positives, negatives), arrays of
    one shape. `quantile` is what a regression should predict for it: None the mean, 0.5 the median.
    """

    name: str
    greater_is_better: bool
    tasks: tuple[str, ...]
    of: Callable[..., float]
    counted: Callable[[Any, Any, float, float], Any] | None = None
    grouped: bool = False
    quantile: float | None = None

    def score(self, labels: Array, scores: Array, *, groups: Groups = None, threshold: float = 0.5) -> float:
        """Return the value; nan where it is not defined, such as of groups that are not given."""
        if self.grouped:
            return float("nan") if groups is None else self.of(labels, scores, groups)
        if self.counted is not None and scores.shape[1] == 1:
            hits, positive = scores[:, 0] >= threshold, labels > 0.5
            true, total = float((hits & positive).sum()), float(positive.sum())
            return float(self.counted(true, float(hits.sum()) - true, total, len(labels) - total))
        return self.of(labels, scores)

    def loss(self, labels: Array, scores: Array, *, groups: Groups = None, threshold: float = 0.5) -> float:
        """Return the score, negated where greater is better."""
        return self._turned(self.score(labels, scores, groups=groups, threshold=threshold))

    def best_loss(self, labels: Array, scores: Array, *, groups: Groups = None) -> float:
        """Return the loss at the threshold that is best for these rows, where there is one to choose."""
        if not self.has_threshold(scores):
            return self.loss(labels, scores, groups=groups)
        return float(np.min(self._losses(labels, scores)[1]))

    def best_threshold(self, labels: Array, scores: Array) -> float:
        """Return the threshold of the least loss, amid the gap in which it is; a half where there is none."""
        if not self.has_threshold(scores):
            return 0.5
        cuts, losses = self._losses(labels, scores)
        least = int(np.argmin(losses))
        below = cuts[least + 1] if least + 1 < len(cuts) else 0.0
        return float(cuts[least] + below) / 2

    def has_threshold(self, scores: Array) -> bool:
        """Whether the metric turns on where two classes are parted, beyond the likelier one."""
        return self.counted is not None and self.name != "accuracy" and scores.shape[1] == 1

    def _losses(self, labels: Array, scores: Array) -> tuple[Array, Array]:
        """Return the distinct scores, falling, and the loss where each is the threshold."""
        values = scores[:, 0]
        order = np.argsort(-values, kind="stable")
        last = np.r_[np.diff(values[order]) != 0, True]
        positive = labels[order] > 0.5
        true = np.cumsum(positive)[last].astype(np.float64)
        false = np.cumsum(~positive)[last].astype(np.float64)
        assert self.counted is not None
        found = np.asarray(self.counted(true, false, float(positive.sum()), float((~positive).sum())))
        return values[order][last], np.nan_to_num(-found if self.greater_is_better else found, nan=np.inf)

    def _turned(self, value: float) -> float:
        return -value if self.greater_is_better else value


def roc_auc(labels: Array, scores: Array) -> float:
    """Return the area under the ROC curve, ties counted half; nan with one class only.

    Of more than two classes the mean over them of each against the rest.

    >>> roc_auc(np.array([0, 0, 1, 1.0]), np.array([[0.1], [0.4], [0.35], [0.8]]))
    0.75
    """
    return _mean_of_classes(_auc, labels, scores)


def _mean_of_classes(of: Callable[[NDArray[np.bool_], Array], float], labels: Array, scores: Array) -> float:
    """Return a score of rows that are of a class or not; of many classes the mean of those that have rows."""
    if scores.shape[1] <= 2:
        return of(labels > 0.5, scores[:, -1])
    values = [of(labels == c, scores[:, c]) for c in range(scores.shape[1])]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _auc(positive: NDArray[np.bool_], scores: Array) -> float:
    n_pos = int(positive.sum())
    n_neg = len(positive) - n_pos
    if n_pos == 0 or n_neg == 0:
        return float("nan")
    ranks = mean_ranks(scores)
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def mean_ranks(values: Array) -> Array:
    """Return each value's rank from 1, the mean of the ranks for equal ones, shape ``(n,)``; no NaN.

    >>> mean_ranks(np.array([0.5, 0.1, 0.5]))
    array([2.5, 1. , 2.5])
    """
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Array = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return found


def average_precision(labels: Array, scores: Array) -> float:
    """Return the mean precision over the positives' thresholds; nan without positives.

    Of more than two classes the mean over them of each against the rest.
    """
    return _mean_of_classes(_precision, labels, scores)


def _precision(positive: NDArray[np.bool_], scores: Array) -> float:
    order = np.argsort(-scores, kind="stable")
    hits, values = positive[order], scores[order]
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
    return float(log_losses(labels, scores).mean())


def log_losses(labels: Array, scores: Array) -> Array:
    """Return each row's negative log-likelihood ``(n_rows,)``, in nats."""
    p = np.clip(class_probabilities(scores), _EPS, 1)
    p = p / p.sum(axis=1, keepdims=True)
    return np.asarray(-np.log(p[np.arange(len(labels)), labels.astype(int)]))


def accuracy(labels: Array, scores: Array) -> float:
    """Return the share of rows whose likeliest class is right."""
    return float((class_probabilities(scores).argmax(axis=1) == labels.astype(int)).mean())


def _recalls(labels: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Return true positives, rows and decisions of each class that has any of the two latter."""
    likeliest, true = class_probabilities(scores).argmax(axis=1), labels.astype(int)
    size = int(max(likeliest.max(initial=0), true.max(initial=0))) + 1
    hits = np.bincount(true[likeliest == true], minlength=size).astype(np.float64)
    rows, said = np.bincount(true, minlength=size), np.bincount(likeliest, minlength=size)
    some = (rows > 0) | (said > 0)
    return hits[some], rows[some].astype(np.float64), said[some].astype(np.float64)


def f1(labels: Array, scores: Array) -> float:
    """Return the mean over the classes of the harmonic mean of precision and recall (macro F1)."""
    hits, rows, said = _recalls(labels, scores)
    return float(np.mean(2 * hits / (rows + said)))


def balanced_accuracy(labels: Array, scores: Array) -> float:
    """Return the mean recall of the classes that have rows."""
    hits, rows, _ = _recalls(labels, scores)
    return float(np.mean((hits / np.maximum(rows, 1))[rows > 0]))


def _f1_counted(true: Any, false: Any, positives: float, _negatives: float) -> Any:
    return 2 * true / np.maximum(true + false + positives, 1)


def _balanced_counted(true: Any, false: Any, positives: float, negatives: float) -> Any:
    recalls = []
    if positives:
        recalls.append(true / positives)
    if negatives:
        recalls.append(1 - false / negatives)
    return sum(recalls) / max(1, len(recalls))


def _accuracy_counted(true: Any, false: Any, positives: float, negatives: float) -> Any:
    return (true + negatives - false) / max(1.0, positives + negatives)


def brier(labels: Array, scores: Array) -> float:
    """Return the mean bounded loss of a classification, in [0, 1]."""
    return float(bounded_loss(labels, scores, scale=None).mean())


def rmse(labels: Array, scores: Array) -> float:
    """Return the root mean squared error."""
    return float(np.sqrt(np.mean((labels - scores[:, 0]) ** 2)))


def mae(labels: Array, scores: Array) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(labels - scores[:, 0])))


def mape(labels: Array, scores: Array) -> float:
    """Return the mean absolute error as a share of the label's size."""
    return float(np.mean(relative_errors(labels, scores)))


def relative_errors(labels: Array, scores: Array) -> Array:
    """Return each row's absolute error as a share of the label's size, ``(n_rows,)``."""
    return np.asarray(np.abs(labels - scores[:, 0]) / np.maximum(np.abs(labels), _EPS))


def pinball(labels: Array, scores: Array, *, quantile: float) -> float:
    """Return the mean pinball loss of a predicted quantile."""
    return float(np.mean(pinball_losses(labels, scores, quantile)))


def pinball_losses(labels: Array, scores: Array, quantile: float) -> Array:
    """Return each row's loss as a quantile, ``(n_rows,)``, of scores ``(n_rows, 1)``, in label units."""
    gap = labels - scores[:, 0]
    return np.asarray(np.maximum(quantile * gap, (quantile - 1) * gap))


def ndcg(labels: Array, scores: Array, groups: NDArray[np.int64]) -> float:
    """Return the mean normalised discounted cumulative gain of the groups (linear gains, ties as they come).

    Groups without a label above 0 are left out; nan if there is no other.
    """
    order = np.lexsort((-scores[:, 0], groups))
    ideal = np.lexsort((-labels, groups))
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    sizes = np.diff(np.r_[starts, len(groups)])
    discount = 1 / np.log2(np.arange(len(groups)) - np.repeat(starts, sizes) + 2)
    gained = np.add.reduceat(labels[order] * discount, starts)
    possible = np.add.reduceat(labels[ideal] * discount, starts)
    some = possible > 0
    return float(np.mean(gained[some] / possible[some])) if some.any() else float("nan")


def r2(labels: Array, scores: Array) -> float:
    """Return the share of variance explained; nan for constant labels."""
    total = float(np.sum((labels - labels.mean()) ** 2))
    return 1 - float(np.sum((labels - scores[:, 0]) ** 2)) / total if total > 0 else float("nan")


def bounded_loss(
    labels: Array, scores: Array, *, scale: float | None, quantile: float | None = None
) -> Array:
    """Return each row's loss in [0, 1]: half the squared distance of the class probabilities (Brier), or,
    with a `scale` in label units, twice the pinball loss over it, up to 1: without a `quantile` the median's,
    which is the absolute error.

    >>> bounded_loss(np.array([1.0]), np.array([[0.8]]), scale=None).round(3)
    array([0.04])
    >>> bounded_loss(np.array([3.0, 3.0]), np.array([[1.0], [5.0]]), scale=10.0, quantile=0.9).round(3)
    array([0.36, 0.04])
    """
    if scale is not None:
        return np.minimum(2 * pinball_losses(labels, scores, quantile or 0.5) / scale, 1.0)
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
        Metric("roc_auc", True, _CLASSES, roc_auc),
        Metric("average_precision", True, _CLASSES, average_precision),
        Metric("log_loss", False, _CLASSES, log_loss),
        Metric("brier", False, _CLASSES, brier),
        Metric("accuracy", True, _CLASSES, accuracy, _accuracy_counted),
        Metric("f1", True, _CLASSES, f1, _f1_counted),
        Metric("balanced_accuracy", True, _CLASSES, balanced_accuracy, _balanced_counted),
        Metric("rmse", False, ("regression",), rmse),
        Metric("mae", False, ("regression",), mae, quantile=0.5),
        Metric("mape", False, ("regression",), mape, quantile=0.5),
        Metric("r2", True, ("regression",), r2),
        Metric("ndcg", True, ("regression",), ndcg, grouped=True),
    )
}


def find_metric(name: str) -> Metric | None:
    """Return a metric by its name, or None; ``quantile_0.9`` is the pinball loss of that quantile.

    >>> find_metric("quantile_0.9").quantile
    0.9
    """
    if not name.startswith("quantile_"):
        return METRICS.get(name)
    try:
        quantile = float(name.removeprefix("quantile_"))
    except ValueError:
        return None
    if not 0 < quantile < 1:
        return None
    return Metric(name, False, ("regression",), partial(pinball, quantile=quantile), quantile=quantile)
