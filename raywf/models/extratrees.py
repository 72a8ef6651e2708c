"""ExtraTrees members: fitted by scikit-learn, exported to ONNX, served by onnxruntime."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores

_MISSING = np.float32(-1e6)


@dataclass(slots=True)
class ExtraTreesModel:
    """A fitted forest; `columns` are the classes that it saw, as score columns."""

    forest: Any
    task: str
    width: int
    columns: NDArray[np.int64]
    rounds: int

    def predict(self, X: Matrix) -> Scores:
        filled = _fill(X)
        if self.task == "regression":
            return np.asarray(self.forest.predict(filled), dtype=np.float64).reshape(-1, 1)
        return _spread(self.forest.predict_proba(filled), self.task, self.width, self.columns)

    def save(self, folder: Path) -> None:
        # imported here: it pulls onnx and protobuf, which training and serving never need
        from skl2onnx import to_onnx

        options = {id(self.forest): {"zipmap": False}} if self.task != "regression" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = to_onnx(
                self.forest, np.zeros((1, self.forest.n_features_in_), np.float32), options=options
            )
        (folder / "model.onnx").write_bytes(graph.SerializeToString())
        np.save(folder / "columns.npy", self.columns, allow_pickle=False)


@dataclass(slots=True)
class OnnxForest:
    """The exported forest in an onnxruntime session of one thread."""

    session: ort.InferenceSession
    task: str
    width: int
    columns: NDArray[np.int64]
    rounds: int = 0

    def predict(self, X: Matrix) -> Scores:
        output = self.session.run(None, {self.session.get_inputs()[0].name: _fill(X)})
        if self.task == "regression":
            return np.asarray(output[0], dtype=np.float64).reshape(-1, 1)
        return _spread(output[1], self.task, self.width, self.columns)

    def save(self, folder: Path) -> None:
        raise TypeError(f"a loaded forest is copied with its bundle, not saved to {folder}")


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
        filled = _fill(rows.X)
        labels = rows.y if problem.task == "regression" else rows.y.astype(int)
        while forest.n_estimators < trees and not (forest.n_estimators and problem.is_over()):
            forest.n_estimators = min(trees, forest.n_estimators + 10)
            forest.fit(filled, labels)
        forest.n_jobs = 1
        columns = np.zeros(1, np.int64) if problem.task == "regression" else forest.classes_.astype(np.int64)
        return ExtraTreesModel(forest, problem.task, problem.width, columns, forest.n_estimators)

    def load(self, problem: Problem, folder: Path) -> Model:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        columns = np.load(folder / "columns.npy", allow_pickle=False)
        return OnnxForest(session, problem.task, problem.width, columns)


def _fill(X: Matrix) -> Matrix:
    return np.ascontiguousarray(np.where(np.isnan(X), _MISSING, X), dtype=np.float32)


def _spread(shares: Any, task: str, width: int, columns: NDArray[np.int64]) -> Scores:
    found = np.asarray(shares, dtype=np.float64)
    full = np.zeros((len(found), max(2, width)))
    full[:, columns] = found
    return full[:, 1:2] if task == "binary" else full
