"""CatBoost members: ordered target statistics for categories; the extra ``raywf[catboost]`` brings it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import catboost as cb
import numpy as np
from numpy.typing import NDArray

from raywf.models.design import activate
from raywf.models.encoding import Matrix
from raywf.models.family import Cost, Model, Problem, Rows, Scores

_MAX_ROUNDS = 2000
_PATIENCE = 50
_LOSSES = {"binary": "Logloss", "multiclass": "MultiClass", "regression": "RMSE"}
_ABSENT = -20.0  # the raw score of a class that no row has, below the lowest of the others
_THREAD_ROWS = 256


class CatBoostModel:
    """A CatBoost model, its classes as score columns."""

    def __init__(
        self, model: cb.CatBoost, problem: Problem, *, columns: tuple[int, ...], rounds: int
    ) -> None:
        self.model, self.problem, self.columns, self.rounds = model, problem, columns, rounds
        self._numbers, self._categories = _split(problem)

    def predict(self, X: Matrix) -> Scores:
        threads = 1 if len(X) < _THREAD_ROWS else -1
        inputs = self._inputs(X)
        raw = self.model.predict(inputs, prediction_type="RawFormulaVal", thread_count=threads)
        found = np.asarray(raw, dtype=np.float64).reshape(len(X), -1)
        return activate(_spread(found, self.columns, self.problem), self.problem.task)

    def save(self, folder: Path) -> None:
        self.model.save_model(str(folder / "model.cbm"))
        (folder / "catboost.json").write_text(json.dumps({"columns": self.columns, "rounds": self.rounds}))

    def _inputs(self, X: Matrix) -> Any:
        return _features(X, self._numbers, self._categories)


class CatBoostFamily:
    """Boosting of symmetric trees with target statistics (Prokhorenkova et al., NeurIPS 2018)."""

    name = "catboost"
    cost = Cost(per_round=3.0, slow_start=1.0)

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        columns = (0,) if problem.task == "regression" else tuple(np.unique(rows.y).astype(int).tolist())
        if len(columns) == 1 and problem.task != "regression":
            raise ValueError("CatBoost needs rows of two classes")
        settings = {
            "loss_function": _LOSSES[problem.task],
            "iterations": rounds or _MAX_ROUNDS,
            "boosting_type": "Plain",
            "thread_count": problem.threads,
            "random_seed": problem.seed,
            "allow_writing_files": False,
            "verbose": False,
            **params,
        }
        numbers, categories = _split(problem)
        train = cb.Pool(_features(rows.X, numbers, categories), rows.y)
        extra: dict[str, Any] = {}
        if valid is not None:
            known = np.isin(valid.y, columns) if problem.task == "multiclass" else np.ones(len(valid.y), bool)
            held = _features(valid.X[known], numbers, categories)
            extra = {"eval_set": cb.Pool(held, valid.y[known]), "early_stopping_rounds": _PATIENCE}
        model = cb.CatBoost(settings)
        try:
            model.fit(train, callbacks=[_StopAt(problem)], **extra)
        except cb.CatBoostError as err:
            raise ValueError(str(err)) from None  # theirs does not survive the way between processes
        return CatBoostModel(model, problem, columns=columns, rounds=int(model.tree_count_ or 1))

    def load(self, problem: Problem, folder: Path) -> Model:
        stored = json.loads((folder / "catboost.json").read_text())
        model = cb.CatBoost().load_model(str(folder / "model.cbm"))
        return CatBoostModel(model, problem, columns=tuple(stored["columns"]), rounds=stored["rounds"])

    def merge(self, models: Sequence[Any]) -> Model:
        first = models[0]
        if any(m.columns != first.columns for m in models):
            raise ValueError("folds with different classes do not merge")
        merged = cb.sum_models([m.model for m in models], weights=[1 / len(models)] * len(models))
        rounds = round(float(np.mean([m.rounds for m in models])))
        return CatBoostModel(merged, first.problem, columns=first.columns, rounds=rounds)


def _split(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    sizes = np.asarray(problem.sizes)
    return np.flatnonzero(sizes == 0), np.flatnonzero(sizes > 0)


def _features(X: Matrix, numbers: NDArray[np.int64], categories: NDArray[np.int64]) -> Any:
    """Return the rows as CatBoost takes them without pandas: floats, and categories as text."""
    if not len(categories):
        return np.ascontiguousarray(X, dtype=np.float32)
    codes = np.nan_to_num(X[:, categories], nan=-1).astype(np.int64)
    texts = codes.astype("S5").astype(object)
    floats = np.ascontiguousarray(X[:, numbers], dtype=np.float32) if len(numbers) else None
    return cb.FeaturesData(num_feature_data=floats, cat_feature_data=texts)


def _spread(raw: NDArray[np.float64], columns: tuple[int, ...], problem: Problem) -> NDArray[np.float64]:
    """Put the classes that were seen into their score columns."""
    if problem.task != "multiclass":
        return raw
    if len(columns) == 2 and raw.shape[1] == 1:
        raw = np.hstack([-raw, raw]) / 2
    full = np.full((len(raw), problem.n_classes), _ABSENT)
    full += raw.min(axis=1, keepdims=True)
    full[:, columns] = raw
    return full


class _StopAt:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def after_iteration(self, info: Any) -> bool:
        return not self._problem.is_over()
