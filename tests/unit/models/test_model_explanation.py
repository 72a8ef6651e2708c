"""What each column adds to an answer: sums for every family and task, and whom a change is laid to."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, COLUMNS, Fitted, fit, write
from hypothesis import given, settings
from parity import Plan, fit_plan, plans

from raywf.core.own import OwnCode
from raywf.models import trees
from raywf.models.bundle import Predictor, load_bundle
from raywf.models.calibration import Calibration
from raywf.models.design import activate, through_link
from raywf.models.explanation import Explainer, Explanation
from raywf.models.families import _PLACES, family
from raywf.models.family import Rows
from raywf.models.own import OwnFamily
from raywf.models.pairs import unwrap
from raywf.models.symmetric import SymmetricModel, _as_trees
from raywf.models.trees import TreeModel

TASKS = sorted(CLASSES)
EVERY = pytest.mark.parametrize(("name", "task"), [(n, t) for n in sorted(_PLACES) for t in TASKS])
TREES = ["lightgbm", "xgboost", "catboost", "extratrees"]
METHODS = dict.fromkeys(TREES, "trees") | {"linear": "linear", "prior": "linear", "torch": "sampled"}
OWN = """
import json

class Tall:
    def fit(self, X, y):
        pass

    def predict(self, X):
        found = []
        for size, lane in zip(X["size"].to_pylist(), X["lane"].to_pylist()):
            found.append(0.2 + 0.1 * ((size or 0) > 0) + 0.4 * (lane == "n") + 0.05 * (lane == "NEW"))
        return found

    def save(self, folder):
        pass

    def load(self, folder):
        pass
"""


def check_sums(predictor: Predictor, rows: list[dict[str, Any]], unit: float = 1.0) -> Explanation:
    """Check that base and contributions sum to the answers, to 1e-6 of a unit."""
    found = Explainer(predictor).explain(rows)
    wanted = predictor.predict_rows(rows)
    assert found.contributions.shape == (len(rows), len(predictor.bundle.columns), wanted.shape[1])
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=1), wanted, rtol=0, atol=1e-6 * unit)
    return found


@EVERY
def test_contributions_sum_to_the_answer(name: str, task: str, written: Any) -> None:
    """Base and columns, in the answer's unit; the method is named."""
    fitted, bundle = written(name, task)
    found = check_sums(load_bundle(bundle.uri), fitted.table.to_pylist()[:20])
    assert found.methods == (METHODS[name],)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(plans())
def test_sums_of_any_ensemble(plan: Plan) -> None:
    """Of any tables, pairs, weights, merged folds and calibration."""
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
        outcome = fit_plan(plan, Path(folder))
        if outcome is not None:
            check_sums(outcome.predictor, outcome.table.to_pylist()[:5], outcome.unit)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("pairs", [0, 4])
@pytest.mark.parametrize("name", [*TREES, "linear"])
def test_members_own_sums_are_exact(name: str, pairs: int, task: str) -> None:
    """A member's raw sums give its own scores, without anything left over to spread."""
    fitted = fit(name, task, params={"pairs": pairs} if pairs else None)
    model, made = unwrap(fitted.model)
    X = made.widen(fitted.rows.X)
    parts = model.contributions(X)
    scores = activate(parts.base + parts.added.sum(axis=1), parts.link)
    np.testing.assert_allclose(scores, model.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TREES)
def test_a_merged_model_is_explained_too(name: str) -> None:
    """Covers are kept where folds become one."""
    folds = [fit(name, "binary", seed=seed, params={"pairs": 2 * seed}) for seed in range(2)]
    model, pairs = unwrap(family(name).merge([f.model for f in folds]))
    X = pairs.widen(folds[0].rows.X)
    parts = model.contributions(X)
    scores = activate(parts.base + parts.added.sum(axis=1), parts.link)
    np.testing.assert_allclose(scores, model.predict(X), atol=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_symmetric_trees_as_nodes_answer_alike(task: str) -> None:
    """Categories and missing numbers included."""
    fitted = fit("catboost", task, params={"depth": 5})
    model = unwrap(fitted.model)[0]
    nodes = _as_trees(model.forest, model.task, model.rounds)
    np.testing.assert_allclose(nodes.predict(fitted.rows.X), model.predict(fitted.rows.X), atol=1e-9)


def test_trees_without_covers_are_sampled(tmp_path: Path) -> None:
    """Bundles that were written before trees had them are explained as well."""
    fitted = fit("catboost", "binary")
    forest = unwrap(fitted.model)[0].forest
    old = type(forest)(**{k: getattr(forest, k) for k in forest.__slots__ if k != "cover"})
    model = SymmetricModel(old, "binary", 8)
    bundle = write(Fitted(fitted.problem, fitted.table, fitted.rows, model), "catboost", tmp_path / "b")
    found = check_sums(load_bundle(bundle.uri), fitted.table.to_pylist()[:5])
    assert found.methods == ("sampled",)
    text = fit("xgboost", "binary").model
    bare = "\n".join(line for line in unwrap(text)[0].text.split("\n") if not line.startswith("leaf_count"))
    assert TreeModel(bare, unwrap(text)[0].output, 1).contributions(fitted.rows.X) is None


def test_trees_with_too_many_leaves_are_sampled(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row must not take minutes."""
    fitted, bundle = written("extratrees", "binary")
    monkeypatch.setattr(trees, "_MOST_EXPLAINED", 3)
    assert check_sums(load_bundle(bundle.uri), fitted.table.to_pylist()[:3]).methods == ("sampled",)


def test_trees_shares_are_shapley_values() -> None:
    """They are what the definition gives, by all orders of the columns and the trees' own covers."""
    fitted = fit("extratrees", "regression")
    model = unwrap(fitted.model)[0]
    row = fitted.rows.X[1:2]
    parts = model.contributions(row)
    blocks = [dict(line.split("=", 1) for line in b.strip().split("\n")) for b in _tree_texts(model.text)]
    columns = range(row.shape[1])
    filled = model._filled(row)[0]

    def value(known: frozenset[int]) -> float:
        return float(sum(_expected(b, 0, filled, known) for b in blocks)) * model.output.share

    weights = [math.factorial(s) * math.factorial(len(columns) - s - 1) for s in columns]
    for column in columns:
        others = [c for c in columns if c != column]
        share = sum(
            weights[size] * (value(frozenset({*some, column})) - value(frozenset(some)))
            for size in range(len(columns))
            for some in itertools.combinations(others, size)
        )
        share /= math.factorial(len(columns))
        assert parts.added[0, column, 0] == pytest.approx(share, abs=1e-4)


def _tree_texts(text: str) -> list[str]:
    return [part.partition("\n")[2].partition("\n\n")[0] for part in text.split("\nTree=")[1:]]


def _expected(tree: dict[str, str], node: int, row: Any, known: frozenset[int]) -> float:
    if tree["num_leaves"] == "1":
        return float(tree["leaf_value"])
    if node < 0:
        return float(tree["leaf_value"].split()[~node])
    sides = [int(tree[side].split()[node]) for side in ("left_child", "right_child")]
    column, threshold = int(tree["split_feature"].split()[node]), float(tree["threshold"].split()[node])
    if column in known:
        return _expected(tree, sides[int(row[column] > threshold)], row, known)
    whole = float(tree["internal_count"].split()[node])
    leaves, inner = tree["leaf_count"].split(), tree["internal_count"].split()
    counts = [float(inner[side] if side >= 0 else leaves[~side]) for side in sides]
    return sum(c / whole * _expected(tree, s, row, known) for c, s in zip(counts, sides, strict=True))


def test_a_column_that_nothing_reads_adds_nothing(written: Any) -> None:
    """A wholly missing column has no share where nothing is read of it, not even that it is missing."""
    for name in ("lightgbm", "torch"):
        fitted, bundle = written(name, "binary")
        found = Explainer(load_bundle(bundle.uri)).explain(fitted.table.to_pylist()[:9])
        assert np.abs(found.contributions[:, [c.name for c in COLUMNS].index("empty")]).max() < 1e-9


def test_a_linear_regression_is_its_coefficients(written: Any) -> None:
    """Two rows that differ in one column differ in its contribution alone."""
    _, bundle = written("linear", "regression")
    row = {"size": 0.5, "empty": None, "lane": "n", "asked": "2024-01-05T10:00:00Z"}
    predictor = load_bundle(bundle.uri)
    one, other = (Explainer(predictor).explain([row | {"lane": lane}]).contributions[0] for lane in "ns")
    change = predictor.predict_row(row | {"lane": "s"})[0] - predictor.predict_row(row)[0]
    np.testing.assert_allclose((other - one)[:, 0], [0, 0, change, 0], atol=1e-5)


@pytest.mark.parametrize("calibration", [None, Calibration(slope=1.4, shift=-0.3)])
def test_a_single_boosted_member_keeps_its_proportions(calibration: Any, tmp_path: Path) -> None:
    """Probabilities are laid to columns as log-odds are, calibrated or not; next to nothing is left over."""
    fitted = fit("lightgbm", "binary")
    bundle = write(fitted, "lightgbm", tmp_path / "b", calibration=calibration)
    found = Explainer(load_bundle(bundle.uri)).explain(fitted.table.to_pylist()[:30]).contributions[..., 0]
    raw = unwrap(fitted.model)[0].contributions(fitted.rows.X[:30]).added[..., 0]
    by_column = np.column_stack([raw[:, :3], raw[:, 3:].sum(axis=1)])
    share = by_column / np.abs(by_column).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found / np.abs(found).sum(axis=1, keepdims=True), share, atol=1e-7)


def test_a_model_of_the_users_own_is_sampled(tmp_path: Path) -> None:
    """An additive one exactly, by table, with texts that no row of the fit had."""
    prior = fit("prior", "binary")
    rows = Rows(prior.rows.X, prior.rows.y, table=prior.table)
    mine = OwnFamily("mine", OwnCode(file="own.py", name="Tall", source=OWN), reads_table=True)
    model = mine.fit(prior.problem, rows, {}, valid=None, rounds=0)
    bundle = write(type(prior)(prior.problem, prior.table, rows, model), "mine", tmp_path / "b")
    predictor = load_bundle(bundle.uri, trust=True)
    row = {"size": 1.0, "empty": None, "lane": "n", "asked": None}
    found = check_sums(predictor, [row, row | {"lane": "NEW"}])
    assert found.methods == ("sampled",)
    np.testing.assert_allclose(found.contributions[:, [1, 3]], 0, atol=1e-12)
    first, second = found.contributions[:, 2, 0]
    assert first - second == pytest.approx(0.35)
    assert found.contributions[0, 0, 0] == pytest.approx(found.contributions[1, 0, 0])


def test_the_same_row_has_the_same_explanation(written: Any) -> None:
    """Whatever its company, and each time."""
    fitted, bundle = written("torch", "multiclass")
    rows = fitted.table.to_pylist()[:4]
    explainer = Explainer(load_bundle(bundle.uri))
    together = explainer.explain(rows).contributions
    alone = np.concatenate([explainer.explain([row]).contributions for row in rows])
    np.testing.assert_allclose(alone, together, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_links_move_as_their_differences_do(task: str) -> None:
    """The derivatives that contributions go through are those of the links and the calibration."""
    draw = np.random.default_rng(0)
    z, moves = draw.normal(size=(5, 3 if task == "multiclass" else 1)), 1e-6
    step = draw.normal(size=z.shape)
    scores, moved = through_link(z, step[:, None], task)
    wanted = (activate(z + moves * step, task) - activate(z - moves * step, task)) / (2 * moves)
    np.testing.assert_allclose(moved[:, 0], wanted, atol=1e-8)
    if task != "regression":
        calibration = Calibration(slope=1.3, shift=0.2 if task == "binary" else 0.0)
        ends = [calibration.apply(scores + sign * moves * moved[:, 0]) for sign in (1, -1)]
        found = calibration.moved(scores, moved)[:, 0]
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * moves), atol=1e-7)
