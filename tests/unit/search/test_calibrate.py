"""Calibration: kept where it lowers the log-loss out of sample, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.metrics import log_loss, roc_auc
from raywf.models.calibration import Calibration
from raywf.search.calibrate import fit_calibration

DRAW = np.random.default_rng(0)
TRUE = DRAW.uniform(0.05, 0.95, (4000, 1))
LABELS = (DRAW.uniform(size=4000) < TRUE[:, 0]).astype(float)


def sharpened(scores: np.ndarray, power: float) -> np.ndarray:
    """Return scores that are too sure of themselves."""
    odds = (scores / (1 - scores)) ** power
    return odds / (1 + odds)


def test_true_probabilities_are_left_alone() -> None:
    """There is nothing to gain."""
    assert fit_calibration(LABELS, TRUE) is None


def test_too_sure_scores_are_softened() -> None:
    """The slope undoes the sharpening, and the log-loss falls."""
    scores = sharpened(TRUE, 3.0)
    found = fit_calibration(LABELS, scores)
    assert found is not None
    assert found.slope == pytest.approx(1 / 3, rel=0.15)
    assert log_loss(LABELS, found.apply(scores)) < log_loss(LABELS, scores) - 0.05


def test_few_rows_are_left_alone() -> None:
    """Below 200 rows a fit would be noise."""
    assert fit_calibration(LABELS[:199], sharpened(TRUE[:199], 3.0)) is None


def test_a_row_that_was_scored_several_times_counts_once() -> None:
    """Copies make no more rows, and no row is on both sides of the trial whether a calibration helps."""
    rows = np.tile(np.arange(150), 3)
    assert fit_calibration(LABELS[rows], sharpened(TRUE[rows], 3.0), rows=rows) is None
    few = np.arange(240)
    memorised = np.where(LABELS[few] == 1, 0.7, 0.3)[:, None]  # as of a model that has seen the labels
    twice = np.tile(few, 2)
    found = fit_calibration(LABELS[twice], memorised[twice], rows=twice)
    once = fit_calibration(LABELS[few], memorised)
    assert found is not None
    assert once is not None
    assert found.slope == pytest.approx(once.slope, rel=1e-3)


def test_rows_count_as_in_the_fits() -> None:
    """Scores of balanced classes are right where the classes count alike, and stay as they are."""
    shares = np.asarray([1 - LABELS.mean(), LABELS.mean()])
    rare = np.flatnonzero((LABELS == 0) | (np.arange(len(LABELS)) % 8 == 0))
    labels, scores = LABELS[rare], TRUE[rare]  # as of a model whose fit had the lost rows too
    counts = np.bincount(labels.astype(int))
    weights = (shares / counts)[labels.astype(int)]
    assert fit_calibration(labels, scores, weights=weights / weights.mean()) is None
    plain = fit_calibration(labels, scores)
    assert plain is not None
    assert plain.shift < -1.5


def test_several_classes_get_one_temperature() -> None:
    """The shift stays 0, and rows still sum to 1."""
    true = np.random.default_rng(1).dirichlet([1, 1, 1], 1500)
    labels = (true.cumsum(axis=1) < DRAW.uniform(size=(1500, 1))).sum(axis=1).astype(float)
    sharp = true**3 / (true**3).sum(axis=1, keepdims=True)
    found = fit_calibration(labels, sharp)
    assert found is not None
    assert found.shift == 0
    np.testing.assert_allclose(found.apply(sharp).sum(axis=1), 1)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 5), st.floats(-3, 3))
def test_binary_order_is_kept(slope: float, shift: float) -> None:
    """A calibration with a positive slope never changes which row scores higher."""
    calibrated = Calibration(slope=slope, shift=shift).apply(TRUE)
    assert roc_auc(LABELS, calibrated) == pytest.approx(roc_auc(LABELS, TRUE), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 0.5]), min_size=1, max_size=5))
def test_certain_scores_stay_finite(scores: list[float]) -> None:
    """Scores of 0 and 1 have no logit of their own."""
    found = Calibration(slope=1.5, shift=0.1).apply(np.array(scores).reshape(-1, 1))
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()
