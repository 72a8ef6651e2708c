"""Metrics against scikit-learn's, on random scores with many ties."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peer

from raywf.core.metrics import METRICS, bounded_loss, find_metric

Pair = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@st.composite
def binary(draw: st.DrawFn) -> Pair:
    """Labels of both classes and scores of few values, so that many are tied."""
    rows = draw(st.integers(2, 60))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)), dtype=float)
    labels[:2] = [0, 1]
    scores = np.array(draw(st.lists(st.integers(0, 6), min_size=rows, max_size=rows))) / 6
    return labels, scores[:, None]


@st.composite
def multiclass(draw: st.DrawFn) -> Pair:
    """Labels of three classes and rows of probabilities."""
    rows = draw(st.integers(3, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return np.r_[[0.0, 1.0, 2.0], rng.integers(0, 3, rows - 3)], rng.dirichlet([0.5, 1, 2], rows)


@settings(deadline=None)
@given(binary())
def test_roc_auc_is_scikit_learn_s(pair: Pair) -> None:
    """Ties count half."""
    labels, scores = pair
    assert METRICS["roc_auc"].score(labels, scores) == pytest.approx(peer.roc_auc_score(labels, scores[:, 0]))


@settings(deadline=None)
@given(binary())
def test_average_precision_is_scikit_learn_s(pair: Pair) -> None:
    """Tied rows enter together."""
    labels, scores = pair
    expected = peer.average_precision_score(labels, scores[:, 0])
    assert METRICS["average_precision"].score(labels, scores) == pytest.approx(expected)


@settings(deadline=None)
@given(multiclass())
def test_rankings_of_several_classes_are_scikit_learn_s(pair: Pair) -> None:
    """The mean over the classes of each against the rest; those without rows do not count."""
    labels, scores = pair
    auc = peer.roc_auc_score(labels, scores, multi_class="ovr", labels=[0, 1, 2])
    precision = peer.average_precision_score(np.eye(3)[labels.astype(int)], scores)
    assert METRICS["roc_auc"].score(labels, scores) == pytest.approx(auc)
    assert METRICS["average_precision"].score(labels, scores) == pytest.approx(precision)
    wider = np.hstack([scores, np.zeros((len(scores), 1))])
    assert METRICS["roc_auc"].score(labels, wider) == pytest.approx(auc)
    assert METRICS["average_precision"].score(labels, wider) == pytest.approx(precision)


@settings(deadline=None)
@given(multiclass())
def test_log_loss_is_scikit_learn_s(pair: Pair) -> None:
    """On probabilities that are not cut at zero."""
    labels, scores = pair
    clipped = np.clip(scores, 1e-6, 1)
    clipped /= clipped.sum(axis=1, keepdims=True)
    expected = peer.log_loss(labels, clipped, labels=[0, 1, 2])
    assert METRICS["log_loss"].score(labels, clipped) == pytest.approx(expected)


@settings(deadline=None)
@given(binary())
def test_a_binary_column_is_two_classes(pair: Pair) -> None:
    """One column of probabilities scores as the two columns that it stands for."""
    labels, scores = pair
    both = np.hstack([1 - scores, scores])
    for name in ("log_loss", "brier"):
        assert METRICS[name].score(labels, scores) == pytest.approx(METRICS[name].score(labels, both))


@settings(deadline=None)
@given(binary())
def test_brier_is_scikit_learn_s(pair: Pair) -> None:
    """For two classes, half the squared distance is the squared error of the positive's probability."""
    labels, scores = pair
    expected = peer.brier_score_loss(labels, scores[:, 0])
    assert METRICS["brier"].score(labels, scores) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmse", peer.root_mean_squared_error),
        ("mae", peer.mean_absolute_error),
        ("mape", peer.mean_absolute_percentage_error),
        ("quantile_0.8", partial(peer.mean_pinball_loss, alpha=0.8)),
        ("r2", peer.r2_score),
    ],
)
def test_regression_metrics_are_scikit_learn_s(name: str, expected: Any) -> None:
    """Values are the only column of the scores."""
    rng = np.random.default_rng(0)
    labels, scores = rng.normal(size=50), rng.normal(size=(50, 1))
    metric = find_metric(name)
    assert metric.score(labels, scores) == pytest.approx(expected(labels, scores[:, 0]))


_DECISIONS = {
    "accuracy": peer.accuracy_score,
    "balanced_accuracy": peer.balanced_accuracy_score,
    "f1": peer.f1_score,
}


@settings(deadline=None)
@given(binary(), st.sampled_from(sorted(_DECISIONS)), st.sampled_from([0.2, 0.5, 0.7]))
def test_decisions_are_scikit_learn_s(pair: Pair, name: str, threshold: float) -> None:
    """A probability that reaches the threshold is a yes."""
    labels, scores = pair
    expected = _DECISIONS[name](labels, (scores[:, 0] >= threshold).astype(float))
    assert METRICS[name].score(labels, scores, threshold=threshold) == pytest.approx(expected)


@settings(deadline=None)
@given(binary(), st.sampled_from(["balanced_accuracy", "f1"]))
def test_no_threshold_is_better_than_the_best(pair: Pair, name: str) -> None:
    """The best loss is that of the best threshold, and no other beats it."""
    labels, scores = pair
    metric = METRICS[name]
    best = metric.loss(labels, scores, threshold=metric.best_threshold(labels, scores))
    assert metric.best_loss(labels, scores) == pytest.approx(best)
    assert best <= min(metric.loss(labels, scores, threshold=t) for t in np.linspace(0.01, 1, 100)) + 1e-12


@settings(deadline=None)
@given(multiclass(), st.sampled_from(["accuracy", "balanced_accuracy", "f1"]))
def test_decisions_of_several_classes_are_scikit_learn_s(pair: Pair, name: str) -> None:
    """The likeliest class is the decision; F1 is the mean over the classes."""
    labels, scores = pair
    decided = scores.argmax(axis=1).astype(float)
    extra = {"average": "macro"} if name == "f1" else {}
    assert METRICS[name].score(labels, scores) == pytest.approx(_DECISIONS[name](labels, decided, **extra))


def test_ndcg_is_scikit_learn_s_by_group() -> None:
    """The mean over the groups that have anything to find."""
    rng = np.random.default_rng(0)
    groups, labels, scores = (
        rng.integers(0, 9, 80),
        rng.integers(0, 4, 80).astype(float),
        rng.normal(size=(80, 1)),
    )
    labels[groups == 3] = 0
    each = [
        peer.ndcg_score(labels[None, groups == g], scores[None, groups == g, 0]) for g in range(9) if g != 3
    ]
    assert METRICS["ndcg"].score(labels, scores, groups=groups) == pytest.approx(np.mean(each))
    assert np.isnan(METRICS["ndcg"].score(labels, scores))


@pytest.mark.parametrize("name", ["quantile_", "quantile_1.5", "quantile_x", "gini"])
def test_other_names_are_no_metrics(name: str) -> None:
    """Rather none than a guess."""
    assert find_metric(name) is None


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_ranking_negatives_alone_has_no_value(name: str) -> None:
    """Without a positive there is nothing to rank: nan, not an error."""
    assert np.isnan(METRICS[name].score(np.zeros(4), np.full((4, 1), 0.5)))


@settings(deadline=None)
@given(multiclass())
def test_the_bounded_loss_is_bounded(pair: Pair) -> None:
    """Each row's loss lies in [0, 1], and a sure right answer has none."""
    labels, scores = pair
    losses = bounded_loss(labels, scores, scale=None)
    assert ((losses >= 0) & (losses <= 1)).all()
    assert bounded_loss(labels, np.eye(3)[labels.astype(int)], scale=None).max() == 0


def test_a_loss_is_less_when_better() -> None:
    """The direction is part of the metric."""
    labels, good, bad = np.array([0.0, 1.0]), np.array([[0.1], [0.9]]), np.array([[0.6], [0.4]])
    groups = np.zeros(2, dtype=int)
    for metric in METRICS.values():
        assert metric.loss(labels, good, groups=groups) < metric.loss(labels, bad, groups=groups)
