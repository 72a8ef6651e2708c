"""XGBoost members: native categories and missing values, saved as XGBoost's own UBJSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores

_MAX_ROUNDS = 1000
_OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}


@dataclass(slots=True)
class XGBoostModel:
    """A booster and the type of each encoded column ('c' or 'q')."""

    booster: xgb.Booster
    types: list[str]
    width: int
    rounds: int

    def predict(self, X: Matrix) -> Scores:
        data = _matrix(X, None, self.types, 1)
        scores = self.booster.predict(data, iteration_range=(0, self.rounds))
        return np.asarray(scores, dtype=np.float64).reshape(len(X), self.width)

    def save(self, folder: Path) -> None:
        self.booster[: self.rounds].save_model(str(folder / "model.ubj"))


class XGBoostFamily:
    """Gradient boosting with a regularised objective (Chen and Guestrin, KDD 2016)."""

    name = "xgboost"

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        types = _types(problem)
        settings = {
            "objective": _OBJECTIVES[problem.task],
            "nthread": problem.threads,
            "seed": problem.seed,
            "verbosity": 0,
            "tree_method": "hist",
            "max_cat_to_onehot": 8,
            **({"num_class": problem.n_classes} if problem.task == "multiclass" else {}),
            **params,
        }
        train = _matrix(rows.X, rows.y, types, problem.threads)
        extra: dict[str, Any] = {}
        if valid is not None:
            extra["evals"] = [(_matrix(valid.X, valid.y, types, problem.threads), "valid")]
            extra["early_stopping_rounds"] = 40
        booster = xgb.train(
            settings, train, rounds or _MAX_ROUNDS, verbose_eval=False, callbacks=[_StopAt(problem)], **extra
        )
        best = booster.best_iteration + 1 if valid is not None else booster.num_boosted_rounds()
        return XGBoostModel(booster, types, problem.width, best)

    def load(self, problem: Problem, folder: Path) -> Model:
        booster = xgb.Booster({"nthread": 1}, model_file=str(folder / "model.ubj"))
        return XGBoostModel(booster, _types(problem), problem.width, booster.num_boosted_rounds())


def _types(problem: Problem) -> list[str]:
    return ["c" if size > 0 else "q" for size in problem.sizes]


def _matrix(X: Matrix, y: Any, types: list[str], threads: int) -> xgb.DMatrix:
    return xgb.DMatrix(X, y, feature_types=types, enable_categorical=True, nthread=threads)


class _StopAt(xgb.callback.TrainingCallback):  # type: ignore[misc]
    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        return self.problem.is_over()
