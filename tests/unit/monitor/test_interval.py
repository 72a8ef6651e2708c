"""Metric intervals hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from raywf.core.metrics import METRICS
from raywf.monitor.interval import metric_interval


def sample(seed, rows, task):
    """Labels and scores of a calibrated model."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(size=rows)
        return y, (y + rng.normal(size=rows))[:, None]
    p = rng.random(rows)
    return (rng.random(rows) < p).astype(float), p[:, None]


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "accuracy", "brier", "rmse", "mae"])
def test_coverage(name):
    """In 200 samples of 300 rows the value of a huge sample lies within, 90 to 99 % of the time."""
    task = METRICS[name].tasks[0]
    truth = METRICS[name].score(*sample(0, 400_000, task))
    intervals = [metric_interval(name, *sample(seed, 300, task)) for seed in range(1, 201)]
    share = np.mean([low <= truth <= high for _, low, high in intervals])
    assert 0.9 <= share <= 0.995


@pytest.mark.parametrize("name", ["average_precision", "r2"])
def test_bootstrap_is_the_same_each_time(name):
    """The seed is fixed."""
    data = sample(1, 200, METRICS[name].tasks[0])
    value, low, high = metric_interval(name, *data)
    assert metric_interval(name, *data) == (value, low, high)
    assert low < value < high


def test_auc_of_several_classes_has_an_interval():
    """Each class against the rest: about as wide as that of two classes, around the value."""
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([1, 1, 1], 400)
    labels = np.array([rng.choice(3, p=row) for row in scores], dtype=float)
    value, low, high = metric_interval("roc_auc", labels, scores)
    assert low < value < high
    assert 0.02 < high - low < 0.1


def test_one_class_has_no_auc():
    """Rather none than a guess."""
    assert metric_interval("roc_auc", np.ones(20), np.random.default_rng(0).random((20, 1))) is None
