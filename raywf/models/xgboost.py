"""XGBoost members: fitted by XGBoost, kept and served as LightGBM's text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores
from raywf.models.scale import Scale, label_scale
from raywf.models.translation import check_translation
from raywf.models.trees import Output, Tree, TreeModel, load_trees, merge_trees, trees_text

_MAX_ROUNDS = 2000


class XGBoostFamily:
    """Gradient boosting with a regularised objective (Chen and Guestrin, KDD 2016).

    A missing or unknown category is a code of its own, one beyond the known ones.
    """

    name = "xgboost"

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        settings = {
            **_objective(problem),
            "nthread": problem.threads,
            "seed": problem.seed,
            "verbosity": 0,
            "tree_method": "hist",
            "max_cat_to_onehot": 8,
            **params,
        }
        scale = label_scale(problem, rows.y)
        train = _matrix(rows, problem, scale)
        extra: dict[str, Any] = {}
        if valid is not None:
            extra["evals"] = [(_matrix(valid, problem, scale), "valid")]
            extra["early_stopping_rounds"] = 40
        booster = xgb.train(
            settings, train, rounds or _MAX_ROUNDS, verbose_eval=False, callbacks=[_StopAt(problem)], **extra
        )
        best = booster.num_boosted_rounds()
        if valid is not None and booster.attr("best_iteration") is not None:
            best = booster.best_iteration + 1
        booster = booster[:best]
        model = _translate(booster, problem, best, scale)
        check_translation(model, rows.X, partial(_answers, booster, problem, scale), problem=problem)
        return model

    def load(self, problem: Problem, folder: Path) -> Model:
        return load_trees(folder)

    def merge(self, models: Sequence[Any]) -> Model:
        return merge_trees(models)


def _fills(problem: Problem) -> tuple[float, ...]:
    return tuple(float(size) if size > 0 else float("nan") for size in problem.sizes)


def _filled(X: Matrix, problem: Problem) -> Matrix:
    return np.where(np.isnan(X), np.asarray(_fills(problem), dtype=np.float32), X)


def _matrix(rows: Rows, problem: Problem, scale: Scale) -> xgb.DMatrix:
    return xgb.DMatrix(
        _filled(rows.X, problem),
        scale.scaled(rows.y),
        weight=rows.weights,
        feature_types=["c" if size > 0 else "q" for size in problem.sizes],
        enable_categorical=True,
        nthread=problem.threads,
    )


def _answers(booster: xgb.Booster, problem: Problem, scale: Scale, X: Matrix) -> Scores:
    found = booster.predict(_matrix(Rows(X, np.zeros(len(X))), problem, Scale()))
    return scale.center + scale.spread * np.asarray(found, dtype=np.float64).reshape(len(X), -1)


def _objective(problem: Problem) -> dict[str, Any]:
    if problem.task == "multiclass":
        return {"objective": "multi:softprob", "num_class": problem.n_classes}
    if problem.task == "binary":
        return {"objective": "binary:logistic"}
    if problem.quantile is not None:
        return {"objective": "reg:quantileerror", "quantile_alpha": problem.quantile}
    return {"objective": "reg:squarederror"}


def _translate(booster: xgb.Booster, problem: Problem, rounds: int, scale: Scale) -> TreeModel:
    """Take the booster's trees over; its base score is what its margin has beyond them."""
    trees = list(_trees(json.loads(booster.save_raw("json"))))
    text = trees_text(trees, features=len(problem.sizes), width=problem.width)
    output = Output(task="regression", width=problem.width, base=(0.0,) * problem.width, fill=_fills(problem))
    probe = np.zeros((1, len(problem.sizes)), dtype=np.float32)
    margin = booster.predict(_matrix(Rows(probe, np.zeros(1)), problem, Scale()), output_margin=True)
    base = np.asarray(margin, dtype=np.float64).ravel() - TreeModel(text, output, rounds).predict(probe)[0]
    base = scale.center + scale.spread * base
    final = replace(output, task=problem.task, base=tuple(base.tolist()), share=scale.spread)
    return TreeModel(text, final, rounds)


def _trees(model: dict[str, Any]) -> Iterator[Tree]:
    for tree in model["learner"]["gradient_booster"]["model"]["trees"]:
        left = np.asarray(tree["left_children"], np.int64)
        split = np.asarray(tree["split_conditions"], np.float32)
        yield _one_way(
            Tree(
                left=left,
                right=np.asarray(tree["right_children"], np.int64),
                feature=np.asarray(tree["split_indices"], np.int64),
                # XGBoost goes left where a value is less: at most the float before
                threshold=np.nextafter(split, np.float32(-np.inf)).astype(np.float64),
                value=split.astype(np.float64),
                missing_left=np.asarray(tree["default_left"], bool),
                categories=_categories(tree),
                cover=np.asarray(tree["sum_hessian"], np.float64),
            )
        )


def _categories(tree: dict[str, Any]) -> dict[int, NDArray[np.int64]]:
    found = {}
    codes = np.asarray(tree["categories"], np.int64)
    spans = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    for node, start, size in spans:
        found[int(node)] = codes[start : start + size]
    return found


def _one_way(tree: Tree) -> Tree:
    """Swap the sides of category splits: XGBoost's listed codes go right, LightGBM's left."""
    for node in tree.categories:
        tree.left[node], tree.right[node] = tree.right[node], tree.left[node]
    return tree


class _StopAt(xgb.callback.TrainingCallback):  # type: ignore[misc]
    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        return self.problem.is_over()
