"""Trees that were taken over answer as the library that fitted them, or are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from raywf.models import families, xgboost
from raywf.models.family import Problem, Rows
from raywf.models.trees import TreeModel, load_trees, merge_trees

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
ROWS = Rows(X, (X[:, 0] > 0).astype(np.float64))
PROBLEM = Problem(task="binary", n_classes=2, sizes=(0, 0, 0))


def test_a_wrong_translation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a fit that failed, before anything is scored or served by it."""
    right = xgboost._translate

    def wrong(booster: object, problem: Problem, rounds: int, scale: object) -> TreeModel:
        made = right(booster, problem, rounds, scale)  # type: ignore[arg-type]
        made._base = made._base + 1e-3
        return made

    family = xgboost.XGBoostFamily()
    family.fit(PROBLEM, ROWS, {}, valid=None, rounds=5)
    monkeypatch.setattr(xgboost, "_translate", wrong)
    with pytest.raises(ValueError, match="would be served answers otherwise than the fitted one"):
        family.fit(PROBLEM, ROWS, {}, valid=None, rounds=5)


def test_a_forest_of_several_classes_walks_each_tree_once(tmp_path: Path) -> None:
    """And answers as the trees of each class would, a row, a few or many, merged, moved, or read again."""
    labels = np.floor(3 * RNG.random(len(X)))
    problem = Problem(task="multiclass", n_classes=3, sizes=(0, 0, 0))
    forest = families.family("extratrees")
    params = {"n_estimators": 7, "min_samples_leaf": 2}
    first, second = (
        forest.fit(dataclasses.replace(problem, seed=s), Rows(X, labels), params, valid=None, rounds=0)
        for s in (0, 1)
    )
    assert isinstance(first, TreeModel)
    assert isinstance(second, TreeModel)
    first.save(tmp_path)
    for made in (
        first,
        load_trees(tmp_path),
        merge_trees([first, second]),
        first.placed((2, 0, 1), 4, like=0),
    ):
        apart = made.apart()
        rows = np.resize(X, (3000, len(made.output.fill)))
        assert made.leaves is not None
        assert apart.leaves is None
        assert len(apart.text) > 2 * len(made.text)
        for count in (0, 1, 9, 3000):
            np.testing.assert_allclose(made.predict(rows[:count]), apart.predict(rows[:count]), atol=1e-12)
    both, mixed = merge_trees([first, second]), merge_trees([first, second.apart()])
    assert mixed.leaves is None
    np.testing.assert_allclose(mixed.predict(X), both.predict(X), atol=1e-6)
    found, expected = first.contributions(X[:9]), first.apart().contributions(X[:9])
    assert found is not None
    assert expected is not None
    np.testing.assert_array_equal(found.added, expected.added)
