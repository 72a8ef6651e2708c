"""ExtraTrees members: fitted by scikit-learn, kept and served as LightGBM's text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores
from raywf.models.scale import Scale, label_scale
from raywf.models.translation import check_translation
from raywf.models.trees import Output, Tree, TreeModel, load_trees, merge_trees, trees_text

_MISSING = -1e6


class ExtraTreesFamily:
    """Extremely randomised trees (Geurts, Ernst and Wehenkel, Machine Learning 2006)."""

    name = "extratrees"

    def fit(
        self,
        problem: Problem,
        rows: Rows,
        params: dict[str, Any],
        *,
        valid: Rows | None,
        rounds: int,
    ) -> Model:
        kind = ExtraTreesRegressor if problem.task == "regression" else ExtraTreesClassifier
        trees = rounds or params.get("n_estimators", 100)
        forest = kind(
            n_estimators=0,
            warm_start=True,
            min_samples_leaf=params.get("min_samples_leaf", 5),
            max_features=params.get("max_features", "sqrt"),
            max_leaf_nodes=params.get("max_leaf_nodes"),
            n_jobs=problem.threads,
            random_state=problem.seed,
        )
        filled = np.where(np.isnan(rows.X), np.float32(_MISSING), rows.X)
        scale = label_scale(problem, rows.y)
        labels = scale.scaled(rows.y) if problem.task == "regression" else rows.y.astype(int)
        while forest.n_estimators < trees and not (forest.n_estimators and problem.is_over()):
            forest.n_estimators = min(trees, forest.n_estimators + 10)
            forest.fit(filled, labels, sample_weight=rows.weights)
        columns = np.zeros(1, np.int64) if problem.task == "regression" else forest.classes_.astype(np.int64)
        model = _translate(forest, columns, problem, scale)
        check_translation(model, rows.X, partial(_answers, forest, columns, problem, scale), problem=problem)
        return model

    def load(self, problem: Problem, folder: Path) -> Model:
        return load_trees(folder)

    def merge(self, models: Sequence[Any]) -> Model:
        return merge_trees(models)


def _answers(forest: Any, columns: NDArray[np.int64], problem: Problem, scale: Scale, X: Matrix) -> Scores:
    filled = np.where(np.isnan(X), np.float32(_MISSING), X)
    if problem.task == "regression":
        return np.asarray(scale.center + scale.spread * forest.predict(filled).reshape(-1, 1))
    full = np.zeros((len(X), max(problem.width, int(columns.max()) + 1, 2)))
    full[:, columns] = forest.predict_proba(filled)
    return full[:, 1:2] if problem.task == "binary" else full[:, : problem.width]


def _translate(forest: Any, columns: NDArray[np.int64], problem: Problem, scale: Scale) -> TreeModel:
    count, width = forest.n_estimators, problem.width
    output = Output(
        task="regression",  # leaves are shares already
        width=width,
        base=(scale.center,) * width,
        share=scale.spread / count,
        fill=(_MISSING,) * len(problem.sizes),
    )
    shares = [_shares(tree.tree_, columns, problem) for tree in forest.estimators_]
    leaves = None
    if width > 1:
        ends = [tree.tree_.children_left < 0 for tree in forest.estimators_]
        leaves = np.concatenate([s[end] for s, end in zip(shares, ends, strict=True)]).astype(np.float32)
    # of several columns the leaves have the values, and the text's own are nothing
    values = [s[:, 0] if width == 1 else np.zeros(len(s)) for s in shares]
    trees = (_tree(tree.tree_, value) for tree, value in zip(forest.estimators_, values, strict=True))
    return TreeModel(trees_text(trees, features=len(problem.sizes), width=1), output, count, leaves)


def _shares(tree: Any, columns: NDArray[np.int64], problem: Problem) -> NDArray[np.float64]:
    """Return what each node answers ``(n_nodes, width)``: the shares of the classes that are scored."""
    shares = np.zeros((tree.node_count, max(problem.width, int(columns.max()) + 1, 2)))
    shares[:, columns] = tree.value[:, 0, :]
    return shares[:, 1:2] if problem.task == "binary" else shares[:, : problem.width]


def _tree(tree: Any, value: NDArray[np.float64]) -> Tree:
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=tree.feature,
        threshold=tree.threshold,
        value=value,
        missing_left=None,
        categories={},
        cover=tree.weighted_n_node_samples,
    )
