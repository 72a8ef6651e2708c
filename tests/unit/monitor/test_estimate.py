"""Estimates without labels, against every labelling there is, drawn labels, and labels that come later."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.metrics import METRICS, Array, roc_auc
from raywf.monitor.estimate import (
    ClassEstimator,
    Estimate,
    can_estimate,
    expected_auc,
    fit_class_estimator,
    judge_estimates,
)

BINARY = ("roc_auc", "log_loss", "brier", "accuracy", "f1", "balanced_accuracy")
GRID = st.integers(1, 19).map(lambda n: n / 20)


def plain(metric: str, classes: int = 2, threshold: float = 0.5) -> ClassEstimator:
    """Return an estimator that takes scores as they are."""
    size = classes + 1
    none = ((0.0,) * size,) * size
    return ClassEstimator(metric=metric, threshold=threshold, theta=(0.0,) * size, covariance=none)


def labellings(scores: Array) -> list[tuple[float, Array]]:
    """Return every labelling of a few rows of two classes with its probability."""
    found = []
    for labels in itertools.product((0.0, 1.0), repeat=len(scores)):
        chosen = np.array(labels)
        found.append((float(np.prod(np.where(chosen > 0, scores[:, 0], 1 - scores[:, 0]))), chosen))
    return found


@given(st.lists(GRID, min_size=1, max_size=7))
@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy"])
def test_means_of_rows_are_exact(metric: str, given_scores: list[float]) -> None:
    """Value and variance are those over all labellings."""
    scores = np.array(given_scores)[:, None]
    drawn = [(p, METRICS[metric].score(labels, scores)) for p, labels in labellings(scores)]
    mean = sum(p * v for p, v in drawn)
    made = plain(metric).estimate(scores)
    assert made is not None
    assert made.value == pytest.approx(mean, abs=1e-6)
    assert made.error**2 == pytest.approx(sum(p * (v - mean) ** 2 for p, v in drawn), abs=1e-6)


@given(st.lists(st.tuples(GRID, GRID), min_size=2, max_size=12))
def test_the_area_is_that_of_all_pairs(pairs: list[tuple[float, float]]) -> None:
    """Each pair of rows counts by how likely it is one of a positive and a negative; equal scores half."""
    scores, likely = np.array(pairs).T
    won = whole = 0.0
    for i, j in itertools.permutations(range(len(scores)), 2):
        weight = likely[i] * (1 - likely[j])
        whole += weight
        won += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    assert expected_auc(scores, likely)[0] == pytest.approx(won / whole)


def test_a_window_of_one_class_has_no_area() -> None:
    """One row has no pair."""
    assert plain("roc_auc").estimate(np.array([[0.4]])) is None
    assert plain("roc_auc").estimate(np.empty((0, 1))) is None


@pytest.mark.parametrize("metric", BINARY)
def test_beside_drawn_labels(metric: str) -> None:
    """The value is the mean over drawn labels, the error their deviation."""
    rng = np.random.default_rng(3)
    scores = rng.beta(2, 3, (400, 1)).round(2)
    drawn = [
        METRICS[metric].score((rng.random(400) < scores[:, 0]).astype(float), scores, threshold=0.4)
        for _ in range(1500)
    ]
    made = plain(metric, threshold=0.4).estimate(scores)
    assert made is not None
    assert made.value == pytest.approx(np.mean(drawn), abs=0.003)
    assert made.error == pytest.approx(np.std(drawn), rel=0.1)


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy"])
def test_several_classes(metric: str) -> None:
    """The same for three classes."""
    rng = np.random.default_rng(4)
    scores = rng.dirichlet((1, 2, 2), 500)
    cuts = np.cumsum(scores, axis=1)
    drawn = [
        METRICS[metric].score((rng.random((500, 1)) > cuts[:, :2]).sum(axis=1).astype(float), scores)
        for _ in range(1000)
    ]
    made = plain(metric, 3).estimate(scores)
    assert made is not None
    assert made.value == pytest.approx(np.mean(drawn), abs=0.003)
    assert made.error == pytest.approx(np.std(drawn), rel=0.1)


@pytest.mark.parametrize("columns", [1, 3])
def test_what_is_not_estimated(columns: int) -> None:
    """Groups, means of precisions, and counts of several classes."""
    known = {name for name in METRICS if can_estimate(name, columns)}
    assert known == ({*BINARY} if columns == 1 else {"log_loss", "brier", "accuracy"})
    assert fit_class_estimator("ndcg", np.zeros(300), np.full((300, columns), 0.3)) is None


def draw(rng: np.random.Generator, rows: int, *, shift: float, sharp: float) -> tuple[Array, Array]:
    """Return labels and scores that are too sure of themselves by `sharp`; `shift` moves the inputs."""
    logits = rng.normal(shift, 1.5, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(float)
    return labels, 1 / (1 + np.exp(-sharp * logits - 0.3))[:, None]


@pytest.mark.parametrize("metric", BINARY)
def test_inputs_that_moved_are_felt(metric: str) -> None:
    """Scores that are not calibrated are, and of windows elsewhere nearly all are within their interval."""
    rng = np.random.default_rng(5)
    past = []
    for i in range(100):
        made = fit_class_estimator(metric, *draw(rng, 2_000, shift=0.0, sharp=1.8))
        labels, scores = draw(rng, 600, shift=i / 60, sharp=1.8)
        estimate = made.estimate(scores) if made is not None else None
        assert estimate is not None
        past.append((estimate, METRICS[metric].score(labels, scores)))
    judged = judge_estimates(past)
    assert judged is not None
    assert judged.covered >= 0.9
    assert abs(judged.bias) < 0.01


def test_few_rows_do_not_calibrate() -> None:
    """Below 200 rows scores are taken at their word, and the interval is wide."""
    rng = np.random.default_rng(6)
    few = fit_class_estimator("accuracy", *draw(rng, 100, shift=0, sharp=1.0))
    many = fit_class_estimator("accuracy", *draw(rng, 10_000, shift=0, sharp=1.0))
    assert few is not None
    assert many is not None
    assert few.theta == (0.0, 0.0, 0.0)
    assert few.covariance[0][0] > 30 * many.covariance[0][0]


def test_the_auc_feels_the_monitors_threshold_not() -> None:
    """A threshold is of decisions only."""
    scores = np.linspace(0.1, 0.9, 50)[:, None]
    assert plain("roc_auc", threshold=0.9).estimate(scores) == plain("roc_auc").estimate(scores)
    assert roc_auc(np.array([0.0, 1.0]), scores[[0, 1]]) == 1.0


def estimate_of(value: float, error: float) -> Estimate:
    half = 1.959963984540054 * error
    return Estimate(metric="mae", value=value, low=value - half, high=value + half, rows=10)


def test_errors_are_followed() -> None:
    """Bias, size, coverage, and what the intervals do not account for."""
    judged = judge_estimates([(estimate_of(v, 0.01), 1.0) for v in (1.1, 1.3, 1.0, 1.2)])
    assert judged is not None
    assert judged.windows == 4
    assert judged.bias == pytest.approx(0.15)
    assert judged.mean_absolute == pytest.approx(0.15)
    assert judged.covered == 0.25
    assert judged.spread == pytest.approx(np.sqrt(0.035 - 0.0001))
    assert judge_estimates([]) is None


def test_the_next_estimate_learns_of_it() -> None:
    """It is moved by most of the bias, and is as wide as the errors were."""
    judged = judge_estimates([(estimate_of(v, 0.01), 1.0) for v in (1.1, 1.3, 1.0, 1.2)])
    assert judged is not None
    settled = judged.settle(estimate_of(1.15, 0.01))
    assert settled.value == pytest.approx(1.15 - 0.8 * 0.15)
    assert settled.error > judged.spread
    assert settled.low < 1.0 < settled.high
    assert settled.value == pytest.approx((settled.low + settled.high) / 2)
