"""The training prior: class shares or the mean. The baseline that a first model has to beat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raywf.models.encoding import Matrix
from raywf.models.family import Contributions, Model, Problem, Rows, Scores


@dataclass(frozen=True, slots=True)
class PriorModel:
    """Answers every row alike."""

    answer: tuple[float, ...]
    rounds: int = 0

    def predict(self, X: Matrix) -> Scores:
        return np.tile(np.asarray(self.answer), (len(X), 1))

    def contributions(self, X: Matrix) -> Contributions:
        """Return that no column adds anything."""
        base = np.asarray(self.answer, dtype=np.float64)
        nothing = np.zeros((*X.shape, len(base)))
        return Contributions(method="linear", link="regression", base=base, added=nothing)

    def save(self, folder: Path) -> None:
        (folder / "prior.json").write_text(json.dumps(self.answer))


class PriorFamily:
    """Fits nothing but shares."""

    name = "prior"

    def fit(
        self,
        problem: Problem,
        rows: Rows,
        params: dict[str, Any],
        *,
        valid: Rows | None,
        rounds: int,
    ) -> Model:
        if problem.task == "multiclass":
            shares = np.bincount(rows.y.astype(int), rows.weights, minlength=problem.n_classes)
            shares = shares / shares.sum()
            return PriorModel(tuple(shares.tolist()))
        if problem.quantile is not None:
            return PriorModel((float(np.quantile(rows.y, problem.quantile)),))
        return PriorModel((float(np.average(rows.y, weights=rows.weights)),))

    def load(self, problem: Problem, folder: Path) -> Model:
        return PriorModel(tuple(json.loads((folder / "prior.json").read_text())))

    def merge(self, models: Sequence[Any]) -> Model:
        return PriorModel(tuple(np.mean([m.answer for m in models], axis=0).tolist()))
