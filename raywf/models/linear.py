"""Linear members: logistic or ridge regression on the dense design, saved as safetensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from raywf.models.design import Design, activate, design_from, fit_design
from raywf.models.encoding import Matrix
from raywf.models.family import Contributions, Model, Problem, Rows, Scores
from raywf.models.scale import Scale, label_scale

_ABSENT = -20.0  # the intercept of a class that no row has
_MOST_ITERATIONS, _AT_A_TIME = 120, 20
_MUCH = 5e6  # numbers in a design, times the scores: 120 iterations take a second or two


@dataclass(slots=True)
class LinearModel:
    """Weights ``(width, k)`` and intercepts ``(k,)`` over the design; a regression's labels have a scale."""

    design: Design
    weights: NDArray[np.float32]
    intercept: NDArray[np.float32]
    task: str
    scale: Scale = field(default_factory=Scale)
    rounds: int = 0

    def predict(self, X: Matrix) -> Scores:
        raw = self.design.transform(X) @ self.weights + self.intercept
        return activate(raw.astype(np.float64), self.task) * self.scale.spread + self.scale.center

    def contributions(self, X: Matrix) -> Contributions:
        """Return each column's coefficients times its values on the design.

        The base is the answer to a row whose numbers are the fit's means, with no known category.
        """
        dense, weights = self.design.transform(X).astype(np.float64), self.weights.astype(np.float64)
        added = np.zeros((*X.shape, weights.shape[1]))
        owners = self.design.owners
        for column in np.unique(owners):
            at = owners == column
            added[:, column] = dense[:, at] @ weights[at]
        scale = self.scale
        base = scale.center + scale.spread * self.intercept.astype(np.float64)
        return Contributions(method="linear", link=self.task, base=base, added=scale.spread * added)

    def save(self, folder: Path) -> None:
        arrays = {"weights": self.weights, "intercept": self.intercept, **self.design.arrays()}
        arrays["scale"] = np.asarray([self.scale.center, self.scale.spread])
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "model.safetensors")


class LinearFamily:
    """Nearly free, and unlike the trees: it earns its place by diversity."""

    name = "linear"

    def fit(
        self,
        problem: Problem,
        rows: Rows,
        params: dict[str, Any],
        *,
        valid: Rows | None,
        rounds: int,
    ) -> Model:
        design = fit_design(rows.X, problem.sizes)
        dense, scale = design.transform(rows.X), label_scale(problem, rows.y)
        if problem.task == "regression":
            labels = scale.scaled(rows.y)
            ridge = Ridge(alpha=params.get("alpha", 1.0)).fit(dense, labels, sample_weight=rows.weights)
            weights, intercept = ridge.coef_.reshape(-1, 1), np.atleast_1d(ridge.intercept_)
            if problem.quantile is not None:  # the quantile lies beside the mean by the same for all rows
                intercept = intercept + np.quantile(labels - ridge.predict(dense), problem.quantile)
        elif len(seen := np.unique(rows.y).astype(int)) == 1:
            weights, intercept = _certain(seen[0], dense.shape[1], problem)
        else:
            model = _logistic(dense, rows, params, problem)
            weights, intercept = _full(model, problem)
        weights, intercept = weights.astype(np.float32), intercept.astype(np.float32)
        return LinearModel(design, weights, intercept, problem.task, scale)

    def load(self, problem: Problem, folder: Path) -> Model:
        arrays = load_file(folder / "model.safetensors")
        scale = Scale(*arrays["scale"].tolist()) if "scale" in arrays else Scale()
        return LinearModel(design_from(arrays), arrays["weights"], arrays["intercept"], problem.task, scale)

    def merge(self, models: Sequence[Any]) -> Model:
        raise ValueError("each fold scales its inputs otherwise")


def _logistic(
    dense: NDArray[np.float32], rows: Rows, params: dict[str, Any], problem: Problem
) -> LogisticRegression:
    """Fit until it converges; of much data so many iterations at a time, as long as the deadline allows."""
    most, labels = int(params.get("max_iter", _MOST_ITERATIONS)), rows.y.astype(int)
    much = dense.size * problem.width > _MUCH
    model = LogisticRegression(C=params.get("C", 0.3), max_iter=most, tol=1e-3, warm_start=True)
    taken = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        while taken < most and not (taken and problem.is_over()):
            model.max_iter = min(_AT_A_TIME, most - taken) if much else most
            model.fit(dense, labels, sample_weight=rows.weights)
            taken += model.max_iter
            if model.n_iter_.max() < model.max_iter:
                break
    return model


def _certain(seen: int, width: int, problem: Problem) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return coefficients for rows of one class, which a logistic regression refuses."""
    if problem.task == "binary":
        return np.zeros((width, 1)), np.asarray([-_ABSENT if seen else _ABSENT])
    intercept = np.full(problem.n_classes, _ABSENT)
    intercept[seen] = 0
    return np.zeros((width, problem.n_classes)), intercept


def _full(model: LogisticRegression, problem: Problem) -> tuple[NDArray[Any], NDArray[Any]]:
    """Spread the coefficients over all classes: one absent from the fold gets a very low intercept."""
    if problem.task == "binary":
        return model.coef_.T, model.intercept_
    weights = np.zeros((model.coef_.shape[1], problem.n_classes))
    intercept = np.full(problem.n_classes, _ABSENT)
    coef, base = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coef, base = np.vstack([-coef, coef]) / 2, np.r_[-base, base] / 2
    weights[:, model.classes_] = coef.T
    intercept[model.classes_] = base
    return weights, intercept
