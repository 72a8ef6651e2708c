"""A regression's loss without labels: rows that are harder are known by their bins."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from raywf.core.metrics import Array, find_metric
from raywf.monitor.drift import MISSING, Codes
from raywf.monitor.estimate import judge_estimates
from raywf.monitor.estimate_loss import can_estimate_loss, fit_loss_estimator

EDGES = np.linspace(-2, 2, 9)


def draw(rng: np.random.Generator, rows: int, *, shift: float = 0.0) -> tuple[Array, Array, Codes]:
    """Return labels, predictions and bins; noise grows with x, is doubled in a category and without z."""
    x, z, s = rng.normal(shift, 1, rows), rng.normal(size=rows), rng.integers(0, 3, rows)
    gone = rng.random(rows) < 0.2 + 0.1 * shift
    noise = np.exp(0.5 * x) * np.where(s == 2, 2.0, 1.0) * np.where(gone, 2.0, 1.0)
    labels = 50 + x + noise * rng.normal(size=rows)
    codes = np.stack(
        [np.searchsorted(EDGES, x), np.where(gone, MISSING, np.searchsorted(EDGES, z)), s], axis=1
    )
    return labels, (50 + x)[:, None], codes.astype(np.uint8)


@pytest.mark.parametrize("metric", ["mae", "rmse", "mape", "quantile_0.9"])
def test_inputs_that_moved_are_felt(metric: str) -> None:
    """Far nearer to what labels will say than the loss of old, and mostly within the interval."""
    rng = np.random.default_rng(0)
    reference = draw(rng, 4_000)
    made = fit_loss_estimator(metric, *reference)
    assert made is not None
    known = find_metric(metric)
    assert known is not None
    old, past = known.score(reference[0], reference[1]), []
    for i in range(40):
        labels, scores, codes = draw(rng, 800, shift=i / 80)
        estimate = made.estimate(codes, scores)
        assert estimate is not None
        past.append((estimate, known.score(labels, scores)))
    judged = judge_estimates(past)
    assert judged is not None
    assert judged.mean_absolute < 0.5 * np.mean([abs(old - found) for _, found in past])
    assert judged.covered >= 0.8


def test_rows_of_a_bin_have_their_loss() -> None:
    """With one feature of two bins the expected loss is each bin's own mean."""
    codes = np.repeat(np.array([[0], [1]], np.uint8), 500, axis=0)
    labels = np.r_[np.full(500, 1.0), np.full(500, 3.0)]
    scores = np.zeros((1000, 1))
    order = np.random.default_rng(1).permutation(1000)
    made = fit_loss_estimator("mae", labels[order], scores[order], codes[order])
    assert made is not None
    assert made.losses(np.array([[0], [1]], np.uint8), np.zeros((2, 1))) == pytest.approx(
        [1.0, 3.0], abs=0.02
    )


def test_noise_is_not_learned() -> None:
    """Where no feature tells of the loss, the estimate is the mean, near enough."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 10, (2_000, 15)).astype(np.uint8)
    labels, scores = rng.normal(size=2_000), np.zeros((2_000, 1))
    made = fit_loss_estimator("mae", labels, scores, codes)
    assert made is not None
    assert np.std(made.losses(codes, scores)) < 0.1 * made.base


def test_bins_never_seen_say_nothing() -> None:
    """A row in bins that no row was in has the mean loss."""
    codes = np.zeros((300, 2), np.uint8)
    labels = np.linspace(0, 1, 300)
    made = fit_loss_estimator("mae", labels, np.zeros((300, 1)), codes)
    assert made is not None
    assert made.losses(np.full((1, 2), 99, np.uint8), np.zeros((1, 1))) == pytest.approx([0.5])


def test_few_rows_give_the_mean() -> None:
    """Below a hundred nothing is fitted; of none there is no estimate."""
    labels, scores, codes = draw(np.random.default_rng(3), 60)
    made = fit_loss_estimator("mae", labels, scores, codes)
    assert made is not None
    assert made.losses(codes, scores) == pytest.approx(np.full(60, made.base))
    assert made.estimate(codes[:0], scores[:0]) is None
    assert fit_loss_estimator("mae", labels[:0], scores[:0], codes[:0]) is None


def test_what_is_not_estimated() -> None:
    """A share of the labels' own variance, and what needs groups."""
    assert [m for m in ("mae", "rmse", "mape", "r2", "ndcg", "quantile_0.5") if can_estimate_loss(m)] == [
        "mae",
        "rmse",
        "mape",
        "quantile_0.5",
    ]
    assert fit_loss_estimator("r2", np.ones(5), np.ones((5, 1)), np.zeros((5, 1), np.uint8)) is None


def test_it_goes_from_process_to_process() -> None:
    """As a small record."""
    made = fit_loss_estimator("mae", *draw(np.random.default_rng(4), 500))
    assert pickle.loads(pickle.dumps(made)) == made
