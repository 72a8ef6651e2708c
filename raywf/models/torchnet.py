"""A small multilayer perceptron: trained by torch, saved as safetensors, served by numpy alone.

After RealMLP (arXiv 2407.04491): smoothly clipped inputs, Mish units, label smoothing, an Adam that forgets
squared gradients soon, whose step rises and falls four times. numpy computes its answers as well as torch,
which is imported for a fit only.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from raywf.models.design import Design, activate, design_from, fit_design
from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores
from raywf.models.scale import Scale, find_scale

_STEPS = 2500
_BATCHES = (32, 256)  # the smallest and the largest batch: about a fortieth of the rows
_EPOCHS = (4, 120)
_SOFT_CLIP = 3.0
_ROWS_AT_ONCE = 8192  # of all nets together: what they compute stays in the processor's caches


@dataclass(frozen=True, slots=True)
class Dense:
    """Rows as a net is trained on them: inputs ``(n_rows, width)``, targets and weights ``(n_rows,)``."""

    X: NDArray[np.float32]
    y: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass(slots=True)
class TorchNetModel:
    """Nets of one shape side by side, whose answers are averaged; a fit gives one.

    Layers are (weights ``(nets, in, out)``, bias ``(nets, 1, out)``) with Mish between. `scale` rescales the
    outputs: centres and spreads, shape ``(2, nets)``.
    """

    design: Design
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    scale: NDArray[np.float64]
    task: str
    rounds: int = 0

    def predict(self, X: Matrix) -> Scores:
        most = _ROWS_AT_ONCE // self.scale.shape[1]
        if len(X) <= most:
            return self._predict(X)
        return np.concatenate([self._predict(X[at : at + most]) for at in range(0, len(X), most)])

    def _predict(self, X: Matrix) -> Scores:
        hidden = soften(self.design.transform(X))
        for i, (weights, bias) in enumerate(self.layers):
            hidden = hidden @ weights + bias
            if i < len(self.layers) - 1:
                hidden = _mish(hidden)
        center, spread = self.scale[:, :, None, None]
        return np.asarray(activate(hidden * spread + center, self.task).mean(axis=0))

    def save(self, folder: Path) -> None:
        arrays: dict[str, Any] = {"scale": self.scale, **self.design.arrays()}
        for i, (weights, bias) in enumerate(self.layers):
            arrays[f"{i}.weights"], arrays[f"{i}.bias"] = weights, bias
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "model.safetensors")


class TorchNetFamily:
    """AdamW on the dense design, with the weights of the best of the epochs that are looked at."""

    name = "torch"

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        training = importlib.import_module(
            "raywf.models.nettraining"
        )  # with torch, which serving does not need
        design = fit_design(rows.X, problem.sizes)
        scale = find_scale(rows.y) if problem.task == "regression" else Scale()
        batch = int(np.clip(len(rows.y) // 40, *_BATCHES))
        epochs = round(float(np.clip(params.get("steps", _STEPS) * batch / len(rows.y), *_EPOCHS)))
        layers, best = training.train_net(
            problem,
            _dense(rows, design, scale),
            params,
            valid=None if valid is None else _dense(valid, design, scale),
            batch=batch,
            epochs=rounds or epochs,
        )
        spread = np.array([[scale.center], [scale.spread]])
        return TorchNetModel(
            _beside([design]), [_layer(*each) for each in layers], spread, problem.task, best
        )

    def load(self, problem: Problem, folder: Path) -> Model:
        arrays = load_file(folder / "model.safetensors")
        count = sum(name.endswith(".bias") for name in arrays)
        layers = [_layer(arrays[f"{i}.weights"], arrays[f"{i}.bias"]) for i in range(count)]
        design = _beside([design_from(arrays)])
        return TorchNetModel(design, layers, arrays["scale"].reshape(2, -1), problem.task)

    def merge(self, models: Sequence[Any]) -> Model:
        layers = [
            (np.concatenate([w for w, _ in each]), np.concatenate([b for _, b in each]))
            for each in zip(*(m.layers for m in models), strict=True)
        ]
        scale = np.concatenate([m.scale for m in models], axis=1)
        return TorchNetModel(_beside([m.design for m in models]), layers, scale, models[0].task)


def _beside(designs: Sequence[Design]) -> Design:
    """Return designs of the same columns as one, with an axis of nets."""

    def stacked(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([part if part.ndim == 3 else part[None, None] for part in parts])

    center, spread = stacked([d.center for d in designs]), stacked([d.spread for d in designs])
    return replace(designs[0], center=center, spread=spread)


def _layer(
    weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a layer with an axis of nets, whether it has one already or is a single net's."""
    return weights.reshape(-1, *weights.shape[-2:]), bias.reshape(-1, 1, bias.shape[-1])


def _dense(rows: Rows, design: Design, scale: Scale) -> Dense:
    """Return the rows as a net is trained on them."""
    weights = np.ones(len(rows.y)) if rows.weights is None else rows.weights
    target = (rows.y - scale.center) / scale.spread
    return Dense(soften(design.transform(rows.X)), target.astype(np.float32), weights.astype(np.float32))


def soften(dense: Matrix) -> Matrix:
    """Clip smoothly: small values stay, none is beyond 3."""
    return np.asarray(dense / np.sqrt(1 + (dense / _SOFT_CLIP) ** 2))


def _mish(z: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(z * np.tanh(np.logaddexp(np.float32(0), z)), z.dtype)
