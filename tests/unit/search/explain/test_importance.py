"""What shuffled columns cost, and which columns tell the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from raywf.core.errors import SearchError
from raywf.core.explanation import ImportanceReport
from raywf.core.metrics import METRICS
from raywf.core.records import Column
from raywf.models.encoding import Encoder
from raywf.models.family import Rows
from raywf.search.explain.blocks import Block, sample_block
from raywf.search.explain.importance import Ground, alike_columns, association, permutation_importance

ROWS = 400
ENCODER = Encoder(
    columns=(
        Column(name="strong", kind="number"),
        Column(name="weak", kind="number"),
        Column(name="unused", kind="number"),
        Column(name="at", kind="time"),
    ),
    categories={},
)


def predict(X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Use the first two columns and an instant's month."""
    return np.asarray(3.0 * X[:, :1] + X[:, 1:2] + 0.5 * X[:, 4:5], dtype=np.float64)


def rows(seed: int = 0) -> Rows:
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(ROWS, 7)).astype(np.float32)
    return Rows(X, predict(X)[:, 0] + draw.normal(0, 0.1, ROWS))


def measure(*blocks: Rows, metric: str = "rmse", seed: int = 0, repeats: int = 5) -> ImportanceReport:
    ground = Ground([Block(predict, b) for b in blocks], "gate")
    return permutation_importance(ground, ENCODER, METRICS[metric], seed=seed, repeats=repeats)


def test_drop_is_that_of_shuffled_values() -> None:
    """For a sum of independent columns, what taking one out and putting noise of its size in costs."""
    report = measure(rows(), repeats=30)
    found = {i.columns[0]: i.drop for i in report.columns}
    assert list(found) == ["strong", "weak", "at", "unused"]
    assert found["strong"] == pytest.approx(3 * np.sqrt(2), rel=0.1)
    assert found["weak"] == pytest.approx(np.sqrt(2), rel=0.1)
    assert found["unused"] == 0
    assert (report.rows, report.score) == (ROWS, pytest.approx(0.1, rel=0.15))


def test_greater_is_better_loses_too() -> None:
    """A drop is positive whatever the metric's direction."""
    report = measure(rows(), metric="r2")
    assert report.score > 0.99
    assert report.columns[0].columns == ("strong",)
    assert report.columns[0].drop > 1


def test_blocks_are_averaged() -> None:
    """The score of two blocks is the mean of theirs; the rows are all of them."""
    one, two = measure(rows(1)), measure(rows(2))
    both = measure(rows(1), rows(2))
    assert both.score == pytest.approx((one.score + two.score) / 2)
    assert both.rows == 2 * ROWS


def test_same_seed_same_importance() -> None:
    """Another seed shuffles otherwise."""
    assert measure(rows()) == measure(rows())
    assert measure(rows()) != measure(rows(), seed=1)


def test_columns_that_tell_the_same_are_shuffled_together() -> None:
    """A copy seems worth half; together they are worth all."""
    given = rows()
    given.X[:, 2] = given.X[:, 0]

    def shared(X: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(1.5 * X[:, :1] + 1.5 * X[:, 2:3] + X[:, 1:2] + 0.5 * X[:, 4:5], dtype=np.float64)

    ground = Ground([Block(shared, given)], "gate")
    report = permutation_importance(ground, ENCODER, METRICS["rmse"], seed=0)
    (group,) = report.groups
    assert set(group.columns) == {"strong", "unused"}
    assert group.drop > 1.7 * max(i.drop for i in report.columns)


def test_metric_that_is_not_defined() -> None:
    """One class only: said, not nan."""
    block = Block(predict, Rows(rows().X, np.ones(ROWS)))
    with pytest.raises(SearchError, match="roc_auc is not defined on the rows"):
        permutation_importance(Ground([block], "gate"), ENCODER, METRICS["roc_auc"], seed=0)


def test_sample_is_of_the_index() -> None:
    """At most so many, the same for a seed."""
    given = Rows(np.arange(100, dtype=np.float32)[:, None], np.arange(100.0))
    index = np.arange(40, 90)
    small = sample_block(predict, given, index, most=10, seed=3)
    assert len(set(small.rows.y)) == 10
    assert set(small.rows.y) <= set(index)
    assert (sample_block(predict, given, index, most=10, seed=3).rows.y == small.rows.y).all()
    assert len(sample_block(predict, given, index, most=99, seed=3).rows.y) == 50


def coded(values: NDArray[np.int64]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def test_associations() -> None:
    """1 for the same in other words, near 0 for nothing in common, 0 where it cannot be said."""
    draw = np.random.default_rng(0)
    codes, x = draw.integers(0, 4, 2000), draw.normal(size=2000).astype(np.float32)
    renamed = coded((codes + 1) % 4)
    assert association(coded(codes), renamed, 4, 4) == pytest.approx(1)
    assert association(coded(codes), coded(draw.integers(0, 3, 2000)), 4, 3) < 0.1
    assert association(coded(codes), coded(codes) * 10, 4, 0) == pytest.approx(1)
    assert association(x, coded(codes), 0, 4) < 0.1
    assert association(x, np.full(2000, np.nan, np.float32), 0, 0) == 0
    assert association(coded(codes), np.zeros(2000, np.float32), 4, 1) == 0
    assert association(coded(codes), coded(codes), 400, 400) == 0


def test_groups_join_through_pairs() -> None:
    """If a is like b and b like c: one group, in the order given; the others are in none."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(500, 4)).astype(np.float32)
    X[:, 1] = X[:, 0] + 0.5 * X[:, 1]
    X[:, 2] = X[:, 1] + 0.5 * X[:, 2]
    encoder = Encoder(columns=tuple(Column(name=n, kind="number") for n in "abcd"), categories={})
    assert alike_columns(encoder, X, ["d", "c", "a", "b"]) == [["c", "a", "b"]]
