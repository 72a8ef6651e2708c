"""Metric intervals hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from raywf.core.metrics import METRICS, Metric, find_metric
from raywf.core.own import OwnScore, read_code
from raywf.monitor.interval import metric_interval


def sample(seed, rows, task):
    """Labels and scores of a calibrated model."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(size=rows)
        return y, (y + rng.normal(size=rows))[:, None]
    p = rng.random(rows)
    return (rng.random(rows) < p).astype(float), p[:, None]


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "accuracy", "brier", "rmse", "mae", "quantile_0.8"])
def test_coverage(name):
    """In 200 samples of 300 rows the value of a huge sample lies within, 90 to 99 % of the time."""
    metric = find_metric(name)
    task = metric.tasks[0]
    truth = metric.score(*sample(0, 400_000, task))
    intervals = [metric_interval(metric, *sample(seed, 300, task)) for seed in range(1, 201)]
    share = np.mean([low <= truth <= high for _, low, high in intervals])
    assert 0.9 <= share <= 0.995


@pytest.mark.parametrize("name", ["average_precision", "r2"])
def test_bootstrap_is_the_same_each_time(name):
    """The seed is fixed."""
    data = sample(1, 200, METRICS[name].tasks[0])
    value, low, high = metric_interval(METRICS[name], *data)
    assert metric_interval(METRICS[name], *data) == (value, low, high)
    assert low < value < high


def three_classes(seed, rows):
    """Labels and scores of a calibrated model, one class rare."""
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet([2, 1, 0.3], rows)
    labels = (rng.random((rows, 1)) > scores.cumsum(axis=1)).sum(axis=1)
    return labels.astype(float), scores


@pytest.mark.parametrize(("rows", "least"), [(300, 0.9), (60, 0.85)])
def test_coverage_of_the_auc_of_several_classes(rows, least):
    """Of the mean over classes, whose rows are shared; of 60 rows some five are of the rarest class."""
    truth = METRICS["roc_auc"].score(*three_classes(0, 400_000))
    drawn = (three_classes(seed, rows) for seed in range(1, 201))
    intervals = [metric_interval(METRICS["roc_auc"], *one) for one in drawn if len(np.unique(one[0])) == 3]
    assert least <= np.mean([low <= truth <= high for _, low, high in intervals]) <= 0.995


@pytest.fixture
def own(tmp_path):
    """A way to make metrics of the user's own, from their text."""

    def make(body):
        (tmp_path / "mine.py").write_text(f"def own(labels, scores):\n    {body}\n")
        return Metric("own", True, ("binary",), OwnScore(read_code(f"{tmp_path}/mine.py:own")))

    return make


def test_a_metric_of_the_user_s_own_has_an_interval(own):
    """As one of raywf's that is the same."""
    labels, scores = sample(1, 200, "binary")
    found = metric_interval(own("return float(((labels > 0.5) == (scores >= 0.5)).mean())"), labels, scores)
    value, low, high = metric_interval(METRICS["accuracy"], labels, scores)
    assert found == pytest.approx((value, low, high), abs=0.02)
    assert found[0] == value


def test_a_metric_of_the_user_s_own_that_raises_has_no_value(own, caplog):
    """The monitor goes on, and the log tells it once; where most resamples have none there is no interval."""
    fussy = own("return {2.0: 1.0}[labels.max() + scores.mean()]")
    for _ in range(3):
        assert metric_interval(fussy, np.zeros(20), np.zeros((20, 1))) is None
    assert caplog.text.count("metric own has no value") == 1
    assert "KeyError" in caplog.text
    rare = own("return {0.05: 1.0}[round(labels.mean(), 3)]")  # of resamples some two in five have it
    assert metric_interval(rare, np.r_[1.0, np.zeros(19)], np.zeros((20, 1))) == (1.0, None, None)


@pytest.mark.parametrize("total", [False, True])
def test_an_interval_of_many_rows_is_of_fewer_resamples(own, total):
    """About as wide as it should be, of means and of sums."""
    rows = 30_000
    labels, scores = sample(3, rows, "binary")
    of = own("return float(labels.sum())" if total else "return float(labels.mean())")
    value, low, high = metric_interval(of, labels, scores)
    wide = 2 * 1.96 * labels.std() / np.sqrt(rows) * (rows if total else 1)
    assert low < value < high
    assert high - low == pytest.approx(wide, rel=0.4)


def test_one_class_has_no_auc():
    """Rather none than a guess."""
    assert metric_interval(METRICS["roc_auc"], np.ones(20), np.random.default_rng(0).random((20, 1))) is None
