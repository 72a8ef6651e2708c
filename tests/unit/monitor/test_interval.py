"""Metric intervals hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from raywf.core.metrics import METRICS, Metric, average_precision
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
    intervals = [metric_interval(METRICS[name], *sample(seed, 300, task)) for seed in range(1, 201)]
    share = np.mean([low <= truth <= high for _, low, high in intervals])
    assert 0.9 <= share <= 0.995


@pytest.mark.parametrize("name", ["average_precision", "r2"])
def test_bootstrap_is_the_same_each_time(name):
    """The seed is fixed."""
    data = sample(1, 200, METRICS[name].tasks[0])
    value, low, high = metric_interval(METRICS[name], *data)
    assert metric_interval(METRICS[name], *data) == (value, low, high)
    assert low < value < high


def test_auc_of_several_classes_has_an_interval():
    """Each class against the rest: about as wide as that of two classes, around the value."""
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([1, 1, 1], 400)
    labels = np.array([rng.choice(3, p=row) for row in scores], dtype=float)
    value, low, high = metric_interval(METRICS["roc_auc"], labels, scores)
    assert low < value < high
    assert 0.02 < high - low < 0.1


def own_metric(score):
    """A metric of the user's own."""
    return Metric("own", True, ("binary",), score)


def test_a_metric_of_the_user_s_own_has_an_interval():
    """As one of raywf's that is the same."""
    data = sample(1, 200, "binary")
    found = metric_interval(own_metric(average_precision), *data)
    assert found == metric_interval(METRICS["average_precision"], *data)


def test_a_metric_of_the_user_s_own_that_raises_has_no_value(caplog):
    """The monitor goes on; on resamples alone it counts where it has one."""
    labels, scores = np.r_[1.0, np.zeros(19)], np.linspace(0, 1, 20)[:, None]

    def fussy(labels, scores):
        if labels.max() < 1:
            raise ValueError("no positive")
        return float(labels @ scores[:, 0])

    assert metric_interval(own_metric(fussy), np.zeros(20), scores) is None
    assert "metric own has no value on 20 rows: ValueError: no positive" in caplog.text
    value, low, high = metric_interval(own_metric(fussy), labels, scores + 1)
    assert 0 < low <= value <= high


def test_one_class_has_no_auc():
    """Rather none than a guess."""
    assert metric_interval(METRICS["roc_auc"], np.ones(20), np.random.default_rng(0).random((20, 1))) is None
