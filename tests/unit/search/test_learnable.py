"""Rows that nothing can be learned from are refused before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.errors import SearchError, ValidationError
from raywf.core.metrics import METRICS
from raywf.core.records import Column, Snapshot
from raywf.core.settings import GateSettings, SearchSettings
from raywf.search.data import SearchData, prepare_data

START = datetime(2024, 1, 1, tzinfo=UTC)


def prepare(
    labels: Sequence[float],
    *,
    metric: str = "roc_auc",
    timed: bool = False,
    weights: Sequence[float | None] | None = None,
    **search: Any,
) -> SearchData:
    """Lay out rows of such labels, of two classes or, for an error's metric, of numbers."""
    rows = len(labels)
    task = METRICS[metric].tasks[0]
    columns = {
        "x": np.arange(rows) * 1.0,
        "__label": np.asarray(labels, float),
        "__key": np.arange(rows) * 7919,
    }
    table = pa.table(columns)
    if timed:
        stamps = [START + timedelta(hours=i) for i in range(rows)]
        table = table.append_column("__time", pa.array(stamps, pa.timestamp("us", "UTC")))
    snapshot = Snapshot(
        id="s1",
        workflow="w",
        uri="",
        rows=rows,
        columns=(Column(name="x", kind="number"),),
        task=task,
        classes=() if task == "regression" else ("no", "yes"),
        label="y",
        has_time=timed,
        window=None,
        as_of=None,
        digest="",
        profile=(),
        sources=(),
    )
    if weights is not None:
        table = table.append_column("__weight", pa.array(weights, pa.float64()))
    asked = SearchSettings(**({"folds": 2} | search))
    found = prepare_data(snapshot, table, search=asked, gate=GateSettings(), metric=METRICS[metric])
    return found[0]


def test_one_class_only() -> None:
    """The class is named, and how many rows there are."""
    with pytest.raises(ValidationError, match=r"label 'y' of snapshot s1 is 'no' in all .* rows to fit on"):
        prepare([0.0] * 200)


def test_the_other_class_is_in_the_gate_only() -> None:
    """What is newest is kept for the gate: the fits would see one class."""
    with pytest.raises(ValidationError, match=r"'no' in all 170 rows to fit on \(the gate keeps 30 others\)"):
        prepare([0.0] * 180 + [1.0] * 20, timed=True)


def test_a_class_seen_once() -> None:
    """No fold can both fit and score it."""
    with pytest.raises(ValidationError, match=r"class 'yes' has 1 of .* rows to fit on: none of 2 folds"):
        prepare([1.0] + [0.0] * 199, timed=True)


def test_constant_values() -> None:
    """Of a regression."""
    with pytest.raises(ValidationError, match="label 'y' of snapshot s1 is '3' in all"):
        prepare([3.0] * 200, metric="rmse")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_no_numbers(value: float) -> None:
    """A snapshot leaves them out; rows from elsewhere may hold them."""
    with pytest.raises(ValidationError, match="missing or not finite in 2 of 200 rows; leave those rows out"):
        prepare([value, value, *range(198)], metric="rmse")


@pytest.mark.parametrize("timed", [True, False])
def test_fewer_rows_than_folds(timed: bool) -> None:
    """The setting to change is named."""
    with pytest.raises(SearchError, match=r"12 rows are too few for 20 folds; lower search.folds"):
        prepare([0.0, 1.0] * 6, timed=timed, folds=20)


def test_folds_without_a_class_are_left_out() -> None:
    """The middle of the time has no positive rows: its folds cannot be scored by the area under the curve."""
    labels = [0.0, 1.0] * 55 + [0.0] * 60 + [0.0, 1.0] * 25
    assert len(prepare(labels, timed=True, folds=4).folds) == 2
    assert len(prepare(labels, timed=True, folds=4, metric="log_loss").folds) == 4


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        ({7: None, 9: -1.0}, "missing, below 0 or not a number in 2 of 200 rows"),
        ({7: float("inf")}, "in 1 of 200"),
    ],
)
def test_a_weight_that_is_none_is_refused(spoilt: dict[int, float | None], told: str) -> None:
    """One of them would make all weights none; a snapshot's checks may not have seen it."""
    weights = [spoilt.get(row, 1.0) for row in range(200)]
    with pytest.raises(ValidationError, match=rf"the column that spine\.weight names\) is .*{told}"):
        prepare([0.0, 1.0] * 100, weights=weights)


def test_rows_that_all_count_nothing_are_refused() -> None:
    """Nothing can be learned of them."""
    with pytest.raises(ValidationError, match="is 0 in all 200 rows"):
        prepare([0.0, 1.0] * 100, weights=[0.0] * 200)


def test_a_class_that_counts_nothing_stays_so() -> None:
    """Balanced or not: its weight is no share of nothing."""
    weights = prepare([0.0, 1.0] * 100, weights=[0.0, 1.0] * 100, class_weight="balanced").rows.weights
    assert weights is not None
    assert weights == pytest.approx(np.tile([0.0, 2.0], 100))
