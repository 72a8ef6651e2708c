"""LightGBM members: native categories and missing values, saved as LightGBM's own text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores

_MAX_ROUNDS = 1500
_OBJECTIVES = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}


@dataclass(slots=True)
class LightGBMModel:
    """A booster; one row takes some tens of microseconds."""

    booster: lgb.Booster
    rounds: int

    def predict(self, X: Matrix) -> Scores:
        scores = np.asarray(self.booster.predict(X, num_threads=1 if len(X) < 256 else 0), dtype=np.float64)
        return scores.reshape(len(X), -1)

    def save(self, folder: Path) -> None:
        self.booster.save_model(str(folder / "model.txt"), num_iteration=self.rounds)


class LightGBMFamily:
    """Gradient boosting by leaf-wise histograms (Ke et al., NeurIPS 2017)."""

    name = "lightgbm"

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        settings = {
            "objective": _OBJECTIVES[problem.task],
            "num_threads": problem.threads,
            "seed": problem.seed,
            "verbosity": -1,
            "max_bin": 255,
            "feature_pre_filter": False,
            **({"num_class": problem.n_classes} if problem.task == "multiclass" else {}),
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
        train = lgb.Dataset(rows.X, rows.y, **data)
        callbacks: list[Any] = [_stop_at(problem)]
        sets = []
        if valid is not None:
            sets = [lgb.Dataset(valid.X, valid.y, reference=train, **data)]
            patience = 40 if params.get("learning_rate", 0.1) >= 0.04 else 80
            callbacks.append(lgb.early_stopping(patience, verbose=False))
        booster = lgb.train(settings, train, rounds or _MAX_ROUNDS, valid_sets=sets, callbacks=callbacks)
        best = (
            booster.best_iteration
            if valid is not None and booster.best_iteration > 0
            else booster.current_iteration()
        )
        return LightGBMModel(booster, max(1, best))

    def load(self, problem: Problem, folder: Path) -> Model:
        booster = lgb.Booster(model_file=str(folder / "model.txt"))
        return LightGBMModel(booster, booster.current_iteration())


def _stop_at(problem: Problem) -> Any:
    def check(env: Any) -> None:
        if problem.is_over() and env.iteration >= 1:
            raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list or [])

    check.order = 0  # type: ignore[attr-defined]
    return check
