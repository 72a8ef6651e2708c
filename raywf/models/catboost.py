"""CatBoost members: fitted by CatBoost, kept and served as arrays; the extra ``raywf[catboost]`` brings it.

With statistics of single categories only (``max_ctr_complexity=1``) every split of a CatBoost tree asks about
one column: a number against a border, or a category against a set. The sets are read off the fitted model by
asking it about every category.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catboost as cb
import numpy as np
from numpy.typing import NDArray

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores
from raywf.models.scale import Scale, label_scale
from raywf.models.symmetric import MAX_DEPTH, Forest, SymmetricModel, load_symmetric, merge_symmetric
from raywf.models.translation import check_translation

_MAX_ROUNDS = 2000
_PATIENCE = 50
_LOSSES = {"binary": "Logloss", "multiclass": "MultiClass", "regression": "RMSE"}
_ABSENT = -30.0  # the raw score of a class that no row has
_UNKNOWN = -1


class CatBoostFamily:
    """Boosting of symmetric trees with target statistics (Prokhorenkova et al., NeurIPS 2018)."""

    name = "catboost"

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        columns = [0] if problem.task == "regression" else np.unique(rows.y).astype(int).tolist()
        if len(columns) == 1 and problem.task != "regression":
            raise ValueError("CatBoost needs rows of two classes")
        settings = {
            "loss_function": _loss(problem),
            "iterations": rounds or _MAX_ROUNDS,
            "boosting_type": "Plain",
            "thread_count": problem.threads,
            "random_seed": problem.seed,
            "allow_writing_files": False,
            "verbose": False,
            **params,
            "max_ctr_complexity": 1,
            "grow_policy": "SymmetricTree",
            "depth": min(params.get("depth", 6), MAX_DEPTH),
        }
        scale = label_scale(problem, rows.y)
        train = cb.Pool(_features(rows.X, problem), scale.scaled(rows.y), weight=rows.weights)
        extra: dict[str, Any] = {}
        if valid is not None:
            known = np.isin(valid.y, columns) if problem.task == "multiclass" else np.ones(len(valid.y), bool)
            valid = valid.take(np.flatnonzero(known))
            held = cb.Pool(_features(valid.X, problem), scale.scaled(valid.y), weight=valid.weights)
            extra = {"eval_set": held, "early_stopping_rounds": _PATIENCE}
        model = cb.CatBoost(settings)
        try:
            model.fit(train, callbacks=[_StopAt(problem)], **extra)
        except cb.CatBoostError as err:
            raise ValueError(str(err)) from None  # theirs does not survive the way between processes
        translation = _Translation(model, train, problem, columns, settings["depth"], scale)
        made = translation.model()
        check_translation(made, rows.X, translation.answers, problem=problem)
        return made

    def load(self, problem: Problem, folder: Path) -> Model:
        return load_symmetric(folder, problem.task)

    def merge(self, models: Sequence[Any]) -> Model:
        return merge_symmetric(models)


def _loss(problem: Problem) -> str:
    return _LOSSES[problem.task] if problem.quantile is None else f"Quantile:alpha={problem.quantile}"


def _features(X: Matrix, problem: Problem) -> Any:
    """Return the rows as CatBoost takes them without pandas: floats, and categories as text."""
    sizes = np.asarray(problem.sizes)
    numbers, categories = np.flatnonzero(sizes == 0), np.flatnonzero(sizes > 0)
    if not len(categories):
        return np.ascontiguousarray(X, dtype=np.float32)
    codes = np.nan_to_num(X[:, categories], nan=_UNKNOWN).astype(np.int64)
    floats = np.ascontiguousarray(X[:, numbers], dtype=np.float32) if len(numbers) else None
    return cb.FeaturesData(num_feature_data=floats, cat_feature_data=codes.astype("S5").astype(object))


@dataclass(frozen=True, slots=True)
class _Translation:
    """A fitted model on its way to arrays; `columns` are the classes that it saw."""

    booster: cb.CatBoost
    pool: Any
    problem: Problem
    columns: list[int]
    depth: int
    scale: Scale

    def model(self) -> SymmetricModel:
        stored, problem = self._json(), self.problem
        scale, bias = stored["scale_and_bias"]
        if scale != 1:
            raise ValueError("a scaled CatBoost model cannot be translated")
        base = self._spread(np.asarray([bias], dtype=np.float64))[0] * self.scale.spread + self.scale.center
        if problem.task == "multiclass":
            base[[c for c in range(problem.width) if c not in self.columns]] = _ABSENT
        trees = stored["oblivious_trees"]
        column = np.zeros((len(trees), MAX_DEPTH), np.int32)
        border = np.full((len(trees), MAX_DEPTH), np.inf, np.float32)
        leaves = np.zeros((len(trees), 2**self.depth, problem.width))
        cover = np.zeros((len(trees), 2**self.depth))
        asked: list[tuple[int, int, NDArray[np.uint8]]] = []
        numbers = np.flatnonzero(np.asarray(problem.sizes) == 0)
        sets = self._category_sets()
        for t, tree in enumerate(trees):
            splits = tree["splits"] or []
            for place, split in enumerate(splits):
                if split["split_type"] == "FloatFeature":
                    column[t, place] = numbers[split["float_feature_index"]]
                    border[t, place] = split["border"]
                else:
                    asked.append((t * MAX_DEPTH + place, *sets[t][place]))
            values = np.asarray(tree["leaf_values"], dtype=np.float64).reshape(2 ** len(splits), -1)
            leaves[t, : len(values)] = self._spread(values)
            cover[t, : len(values)] = tree["leaf_weights"]
        lengths = [len(yes) for _, _, yes in asked]
        forest = Forest(
            column=column,
            border=border,
            place=np.asarray([place for place, _, _ in asked], np.int64),
            asked=np.asarray([c for _, c, _ in asked], np.int64),
            start=np.cumsum([0, *lengths[:-1]]).astype(np.int64)[: len(asked)],
            yes=np.concatenate([np.zeros(0, np.uint8), *(yes for _, _, yes in asked)]),
            leaves=leaves.reshape(-1, problem.width) * self.scale.spread,
            fill=self._fill(stored),
            base=base,
            cover=cover.ravel(),
        )
        return SymmetricModel(forest, problem.task, len(trees))

    def answers(self, X: Matrix) -> Scores:
        """Return what CatBoost itself says, shape ``(n_rows, width)``."""
        problem, features = self.problem, _features(X, self.problem)
        if problem.task == "regression":
            raw = np.asarray(self.booster.predict(features, thread_count=problem.threads))
            return self.scale.center + self.scale.spread * raw.reshape(-1, 1)
        shares = np.asarray(
            self.booster.predict(features, prediction_type="Probability", thread_count=problem.threads)
        )
        if problem.task == "binary":
            return shares[:, 1:]
        full = np.zeros((len(X), problem.width))
        full[:, self.columns] = shares
        return full

    def _json(self) -> Any:
        with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
            path = Path(folder) / "model.json"
            self.booster.save_model(str(path), format="json", pool=self.pool)
            return json.loads(path.read_text())

    def _spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put raw scores ``(n, seen)`` into all score columns: of two of several classes one is kept."""
        if self.problem.task != "multiclass":
            return values
        if values.shape[1] == 1:
            values = np.hstack([-values, values]) / 2
        full = np.zeros((len(values), self.problem.width))
        full[:, self.columns] = values
        return full

    def _fill(self, stored: Any) -> NDArray[np.float32]:
        """Return what missing values become: a code of their own, or a number on the side they take."""
        fill = np.asarray([float(s) if s > 0 else -np.inf for s in self.problem.sizes], dtype=np.float32)
        numbers = np.flatnonzero(np.asarray(self.problem.sizes) == 0)
        for known in stored["features_info"].get("float_features", []):
            if known.get("nan_value_treatment") == "AsTrue":
                fill[numbers[known["feature_index"]]] = np.inf
        return fill

    def _category_sets(self) -> list[dict[int, tuple[int, NDArray[np.uint8]]]]:
        """Return for each tree and place the category column asked about, and by code whether it says yes."""
        sizes = self.problem.sizes
        columns = [c for c, size in enumerate(sizes) if size > 0]
        found: list[dict[int, tuple[int, NDArray[np.uint8]]]] = [{} for _ in range(self.booster.tree_count_)]
        for column in columns:
            codes = np.arange(sizes[column] + 1)
            probes = np.zeros((len(codes), len(sizes)), dtype=np.float32)
            probes[:, column] = np.where(codes == sizes[column], np.nan, codes)
            leaves = np.asarray(self.booster.calc_leaf_indexes(_features(probes, self.problem)), np.int64)
            for tree, indices in enumerate(leaves.T):
                for place in range(MAX_DEPTH):
                    bits = ((indices >> place) & 1).astype(np.uint8)
                    # a place that no category changes says the same to all, whichever column is asked
                    if place not in found[tree] or bits.any() != bits.all():
                        found[tree][place] = (column, bits)
        return found


class _StopAt:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def after_iteration(self, info: Any) -> bool:
        return not self._problem.is_over()
