"""LightGBM members: native categories and missing values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm as lgb

from raywf.models.family import Model, Problem, Rows
from raywf.models.scale import label_scale
from raywf.models.trees import Output, TreeModel, load_trees, merge_trees

_MAX_ROUNDS = 3000


class LightGBMFamily:
    """Gradient boosting by leaf-wise histograms (Ke et al., NeurIPS 2017)."""

    name = "lightgbm"

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        settings = {
            **objective(problem),
            "num_threads": problem.threads,
            "seed": problem.seed,
            "verbosity": -1,
            "max_bin": 255,
            "feature_pre_filter": False,
            **params,
        }
        data = {
            "categorical_feature": [i for i, size in enumerate(problem.sizes) if size > 0],
            "free_raw_data": True,
            "params": {
                "verbosity": -1,
                "max_bin": 255,
                "num_threads": problem.threads,
                "feature_pre_filter": False,
            },
        }
        scale = label_scale(problem, rows.y)
        train = lgb.Dataset(rows.X, scale.scaled(rows.y), weight=rows.weights, **data)
        sets, callbacks, early = [], list[Any](), None
        if valid is not None:
            sets = [
                lgb.Dataset(valid.X, scale.scaled(valid.y), weight=valid.weights, reference=train, **data)
            ]
            early = lgb.early_stopping(_patience(params), verbose=False)
            callbacks.append(early)
        callbacks.append(_stop_at(problem, early))
        booster = lgb.train(settings, train, rounds or _MAX_ROUNDS, valid_sets=sets, callbacks=callbacks)
        best = booster.current_iteration()
        if valid is not None and booster.best_iteration > 0:
            best = booster.best_iteration
        base = (scale.center,) * problem.width
        output = Output(task=problem.task, width=problem.width, base=base, share=scale.spread)
        return TreeModel(booster.model_to_string(num_iteration=best), output, max(1, best))

    def load(self, problem: Problem, folder: Path) -> Model:
        return load_trees(folder)

    def merge(self, models: Sequence[Any]) -> Model:
        return merge_trees(models)


def objective(problem: Problem) -> dict[str, Any]:
    """Return what LightGBM is to lower, as its parameters."""
    if problem.task == "multiclass":
        return {"objective": "multiclass", "num_class": problem.n_classes}
    if problem.quantile == 0.5:
        return {"objective": "regression_l1"}
    if problem.quantile is not None:
        return {"objective": "quantile", "alpha": problem.quantile}
    return {"objective": problem.task}


def _patience(params: dict[str, Any]) -> int:
    rate = float(params.get("learning_rate", 0.1))
    return round(min(150, max(30, 2.5 / rate)))


def _stop_at(problem: Problem, early: Any) -> Any:
    """Return what ends a fit at its deadline: with the best round that early stopping has seen, if any."""

    def check(env: Any) -> None:
        if problem.is_over() and env.iteration >= 1:
            seen = early.best_iter if early else []  # none of dart, whose rounds are no prefix of later ones
            best = seen[0] if seen else env.iteration
            raise lgb.callback.EarlyStopException(best, env.evaluation_result_list or [])

    check.order = early.order + 1 if early else 0  # type: ignore[attr-defined]
    return check
