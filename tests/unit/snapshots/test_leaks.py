"""The leak check."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.records import Column
from raywf.snapshots.leaks import find_late_columns, find_leaks

RNG = np.random.default_rng(3)
N = 2000
LABEL = (RNG.random(N) < 0.4).astype(float)


def leaks(values, *, kind="number", label=LABEL, classes=2):
    """The leaks found in one column."""
    keys = np.random.default_rng(0).integers(-(2**62), 2**62, len(label))
    table = pa.table({"x": pa.array(values), "__label": label, "__key": keys})
    return find_leaks(table, (Column(name="x", kind=kind),), classes=classes, bound=0.995)


def test_a_number_that_orders_the_label_is_found():
    """Either way round."""
    assert leaks(-LABEL + RNG.normal(0, 0.05, N))[0].column == "x"


def test_a_code_that_tells_the_label_without_order_is_found():
    """The middle one of three numbers is the positive class."""
    codes = np.where(LABEL == 1, 1, RNG.choice([0, 2], N)).astype(float)
    assert "predicts the label" in leaks(codes)[0].how


def test_a_category_that_tells_the_label_is_found():
    """Many words, each of one class."""
    words = [f"{'no' if y else 'yes'}{i}" for y, i in zip(LABEL, RNG.integers(0, 9, N), strict=True)]
    assert leaks(words, kind="category")


def test_an_identifier_is_no_leak():
    """A column of unique values says nothing out of sample."""
    assert leaks([f"id{i}" for i in range(N)], kind="category") == ()


def test_a_good_feature_is_no_leak():
    """AUC 0.98 is what models hope for."""
    assert leaks(LABEL + RNG.normal(0, 0.35, N)) == ()


def test_a_column_filled_for_one_class_only_is_found():
    """A reason for cancelling, given by half of those who cancelled."""
    reason = np.where((LABEL == 1) & (RNG.random(N) < 0.5), "dear", None)
    assert "one class" in leaks(reason, kind="category")[0].how


def test_a_column_missing_at_random_is_no_leak():
    """Nor is one that is rarely filled."""
    assert leaks(np.where(RNG.random(N) < 0.02, 1.0, np.nan).tolist()) == ()


def test_one_class_of_many_is_found():
    """Multiclass is looked at one against the rest."""
    label = RNG.integers(0, 3, N).astype(float)
    assert leaks((label == 2) + RNG.normal(0, 0.05, N), label=label, classes=3)


def test_regression_uses_rank_correlation():
    """A monotone function of the target is a leak, a noisy one is not."""
    target = RNG.normal(size=N)
    assert leaks(np.exp(target), label=target, classes=0)
    assert leaks(target + RNG.normal(size=N), label=target, classes=0) == ()


@pytest.mark.parametrize(("peers", "found"), [(1.0, True), (None, False)])
def test_a_column_empty_until_the_label_is_known(peers, found):
    """Found where known rows of the same days have it; a feed that broke is empty for both."""
    days = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(200)]
    known = pa.table({"x": pa.array([1.0] * 100 + [peers] * 100, pa.float64()), "__time": days})
    pending = pa.table({"x": pa.nulls(100, pa.float64()), "__time": days[100:]})
    columns = (Column(name="x", kind="number"),)
    assert bool(find_late_columns(known, pending, columns)) is found
