"""Metrics against scikit-learn's, on random scores with many ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peer

from raywf.core.metrics import METRICS, bounded_loss

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
    for name in ("log_loss", "brier", "accuracy"):
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
        ("r2", peer.r2_score),
    ],
)
def test_regression_metrics_are_scikit_learn_s(name: str, expected: Any) -> None:
    """Values are the only column of the scores."""
    rng = np.random.default_rng(0)
    labels, scores = rng.normal(size=50), rng.normal(size=(50, 1))
    assert METRICS[name].score(labels, scores) == pytest.approx(expected(labels, scores[:, 0]))


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
    for metric in METRICS.values():
        assert metric.loss(labels, good) < metric.loss(labels, bad)
