"""Columns made of pairs of numbers: found where they help, made alike for one row and many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raywf.core.metrics import METRICS
from raywf.models.families import family
from raywf.models.family import Problem, Rows
from raywf.models.pairs import KINDS, make_pairs, unwrap
from raywf.models.widening import find_pairs

QUOTIENT = KINDS.index(np.divide)
PROBLEM = Problem(task="regression", n_classes=0, sizes=(0, 0, 0, 3, 0))


def quotients(rows: int = 1200) -> Rows:
    """Return rows whose label is the quotient of two of three numbers, beside a category and a flag."""
    draw = np.random.default_rng(0)
    X = np.column_stack(
        [draw.uniform(1, 9, (rows, 3)), draw.integers(0, 3, rows), draw.integers(0, 2, rows)]
    ).astype(np.float32)
    return Rows(X, (X[:, 0] / X[:, 2]).astype(np.float64))


def test_the_pair_that_tells_is_found() -> None:
    """And with one allowed, no other."""
    assert find_pairs(PROBLEM, quotients(), 1).made == ((QUOTIENT, 0, 2),)


def test_only_numbers_are_paired() -> None:
    """Neither categories nor flags are."""
    found = find_pairs(PROBLEM, quotients(), 50)
    assert {place for _, *places in found.made for place in places} == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lightgbm", {"min_data_in_leaf": 2}),
        ("xgboost", {}),
        ("catboost", {"learning_rate": 0.2}),
        ("extratrees", {"min_samples_leaf": 2}),
    ],
)
def test_trees_learn_more_of_the_same_rows(name: str, params: dict[str, Any]) -> None:
    """The error on rows that they have not seen is less by a tenth and more."""
    rows, rmse = quotients(), METRICS["rmse"]
    fit, held = rows.take(np.arange(900)), rows.take(np.arange(900, 1200))
    plain, wide = (
        family(name).fit(PROBLEM, fit, {**params, **more}, valid=None, rounds=80)
        for more in ({}, {"pairs": 4})
    )
    losses = [rmse.loss(held.y, model.predict(held.X)) for model in (plain, wide)]
    assert losses[1] < 0.9 * losses[0]


def test_fewer_than_two_numbers_make_no_pairs() -> None:
    """The model is then the family's own."""
    rows = Rows(quotients().X[:, [0, 3]], quotients().y)
    problem = Problem(task="regression", n_classes=0, sizes=(0, 3))
    model = family("lightgbm").fit(problem, rows, {"pairs": 9}, valid=None, rounds=3)
    assert not unwrap(model)[1].made


def test_one_row_is_widened_as_many() -> None:
    """Each kind; what is missing or not finite in either makes the pair missing."""
    pairs = make_pairs((kind, 0, 1) for kind in range(len(KINDS)))
    values = [[6, 3], [1, 0], [0, 0], [np.nan, 2], [3e38, 3e38], [-np.inf, 2]]
    X = np.asarray(values, dtype=np.float32)
    found = pairs.widen(X)
    nan = np.nan
    wanted = [[3, 9, 18, 2], [1, 1, 0, nan], [0, 0, 0, nan], [nan] * 4, [0, nan, nan, 1], [nan] * 4]
    np.testing.assert_array_equal(found, np.hstack([X, np.asarray(wanted, dtype=np.float32)]))
    np.testing.assert_array_equal(np.vstack([pairs.widen(row[None]) for row in X]), found)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost", "extratrees"])
def test_models_with_and_without_pairs_merge(name: str) -> None:
    """Where one fold's rows show no pair that helps, and the last column is a category."""
    rows, places = quotients(400), [0, 1, 2, 3]
    few = Rows(rows.X[:, places], rows.y)
    problem = Problem(task="regression", n_classes=0, sizes=(0, 0, 0, 3))
    models = [family(name).fit(problem, few, {"pairs": n}, valid=None, rounds=5) for n in (0, 2)]
    merged = family(name).merge(models)
    wanted = np.mean([model.predict(few.X) for model in models], axis=0)
    np.testing.assert_allclose(merged.predict(few.X), wanted, rtol=1e-5, atol=1e-5)
