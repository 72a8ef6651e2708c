"""A small multilayer perceptron: trained by torch, saved as safetensors, served by numpy alone.

After RealMLP (arXiv 2407.04491): smoothly clipped inputs, Mish units, label smoothing, an Adam that forgets
squared gradients soon, whose step rises and falls four times. numpy computes its answers as well as torch.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.optim.adamw import adamw

from raywf.models.design import Design, activate, design_from, fit_design
from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores
from raywf.models.scale import Scale, find_scale

_STEPS = 2500
_BATCHES = (32, 256)  # the smallest and the largest batch: about a fortieth of the rows
_EPOCHS = (4, 120)
_TIMED_STEPS = 20  # after so many the time for the others is known
_SMOOTHING = 0.05
_SOFT_CLIP = 3.0
_ROWS_AT_ONCE = 8192  # of all nets together: what they compute stays in the processor's caches


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
        hidden = _soften(self.design.transform(X))
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
        torch.set_num_threads(problem.threads)
        torch.manual_seed(problem.seed)
        design = fit_design(rows.X, problem.sizes)
        scale = find_scale(rows.y) if problem.task == "regression" else Scale()
        center, spread = scale.center, scale.spread
        net = _net(design.width, problem, params)
        batch = int(np.clip(len(rows.y) // 40, *_BATCHES))
        epochs = rounds or round(float(np.clip(params.get("steps", _STEPS) * batch / len(rows.y), *_EPOCHS)))
        data = _Data(
            X=_tensor(design, rows),
            y=_target(rows, center, spread),
            weights=_weights(rows),
            valid=None
            if valid is None
            else (_tensor(design, valid), _target(valid, center, spread), _weights(valid)),
            batch=batch,
        )
        best = _train(net, problem, params, data, epochs)
        return TorchNetModel(
            _beside([design]), _layers(net), np.array([[center], [spread]]), problem.task, best
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


class _AdamW:
    """AdamW with a step that rises and falls in four ever longer waves over `steps`, by torch's own function.

    `torch.optim.AdamW` would import torch's compiler at its first use: two seconds in each new worker.
    """

    def __init__(self, weights: list[torch.Tensor], *, lr: float, steps: int) -> None:
        self._weights, self._lr, self.steps, self.done = weights, lr, steps, 0
        self._means = [torch.zeros_like(w) for w in weights]
        self._squares = [torch.zeros_like(w) for w in weights]
        self._counts = [torch.tensor(0.0) for _ in weights]

    def step(self) -> None:
        """Move the weights along their gradients, and drop the gradients."""
        with torch.no_grad():
            adamw(
                self._weights,
                [w.grad for w in self._weights if w.grad is not None],
                self._means,
                self._squares,
                [],
                self._counts,
                amsgrad=False,
                beta1=0.9,
                beta2=0.95,
                lr=self._lr * _wave(min(1.0, self.done / self.steps)),
                weight_decay=1e-2,
                eps=1e-8,
                maximize=False,
            )
        self.done += 1
        for weight in self._weights:
            weight.grad = None


def _wave(share: float) -> float:
    """Return the step's factor after a share of the steps ("coslog4"): 0 at both ends, in [0, 1]."""
    return 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * share)))


def _looks(epochs: int) -> set[int]:
    """Return the epochs at the ends of the waves, and three in the first one for rows soon learnt by heart.

    >>> sorted(_looks(120))
    [2, 4, 6, 8, 24, 56, 120]
    """
    return {max(1, round(epochs * share / 15)) for share in (0.25, 0.5, 0.75, 1, 3, 7, 15)}


def _net(width: int, problem: Problem, params: dict[str, Any]) -> nn.Sequential:
    sizes = [width, *params.get("hidden", (128, 128, 128))]
    blocks: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        linear = nn.Linear(before, after)
        nn.init.normal_(linear.weight, std=before**-0.5)
        nn.init.zeros_(linear.bias)
        blocks += [linear, nn.Mish(), nn.Dropout(params.get("dropout", 0.0))]
    return nn.Sequential(*blocks, nn.Linear(sizes[-1], problem.width))


def _layers(net: nn.Sequential) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    linear = [block for block in net if isinstance(block, nn.Linear)]
    return [_layer(m.weight.detach().numpy().T.copy(), m.bias.detach().numpy().copy()) for m in linear]


def _layer(
    weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a layer with an axis of nets, whether it has one already or is a single net's."""
    return weights.reshape(-1, *weights.shape[-2:]), bias.reshape(-1, 1, bias.shape[-1])


def _soften(dense: Matrix) -> Matrix:
    """Clip smoothly: small values stay, none is beyond 3."""
    return np.asarray(dense / np.sqrt(1 + (dense / _SOFT_CLIP) ** 2))


def _mish(z: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(z * np.tanh(np.logaddexp(np.float32(0), z)), z.dtype)


def _tensor(design: Design, rows: Rows) -> torch.Tensor:
    return torch.from_numpy(_soften(design.transform(rows.X)))


def _target(rows: Rows, center: float, spread: float) -> torch.Tensor:
    return torch.from_numpy(((rows.y - center) / spread).astype(np.float32))


def _weights(rows: Rows) -> torch.Tensor:
    weights = np.ones(len(rows.y)) if rows.weights is None else rows.weights
    return torch.from_numpy(weights.astype(np.float32))


def _loss(problem: Problem, *, smoothing: float) -> Any:
    """Return the mean loss as a function of outputs, targets and weights."""
    ops = nn.functional

    def parts(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if problem.task == "binary":
            soft = y * (1 - smoothing) + smoothing / 2
            return ops.binary_cross_entropy_with_logits(out[:, 0], soft, reduction="none")
        if problem.task == "multiclass":
            return ops.cross_entropy(out, y.long(), label_smoothing=smoothing, reduction="none")
        gap = y - out[:, 0]
        return gap**2 if problem.quantile is None else _pinball(gap, problem.quantile)

    return lambda out, y, weights: (parts(out, y) * weights).mean()


def _pinball(gap: torch.Tensor, quantile: float) -> torch.Tensor:
    return torch.maximum(quantile * gap, (quantile - 1) * gap)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """Dense inputs and targets, those held back for validation, rows a step."""

    X: torch.Tensor
    y: torch.Tensor
    weights: torch.Tensor
    valid: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    batch: int


def _train(net: nn.Sequential, problem: Problem, params: dict[str, Any], data: _Data, epochs: int) -> int:
    """Train in place; return the epochs of the best validation loss (without validation, the whole ones).

    Only a few epochs are looked at: the best of all of them would look far better than it is.
    Where the deadline is near there are fewer epochs, so that the last wave still ends.
    """
    loss, plain = _loss(problem, smoothing=_SMOOTHING), _loss(problem, smoothing=0.0)
    a_pass = -(-len(data.X) // data.batch)
    optimizer = _AdamW(list(net.parameters()), lr=params.get("lr", 0.01), steps=epochs * a_pass)
    order = torch.Generator().manual_seed(problem.seed)
    best_loss, best_epoch, best_state = float("inf"), 0, None
    began, epoch = time.time(), 0
    while epoch < epochs and not (epoch and problem.is_over()):
        net.train()
        for index in torch.randperm(len(data.X), generator=order).split(data.batch):
            loss(net(data.X[index]), data.y[index], data.weights[index]).backward()
            optimizer.step()
            if optimizer.done == _TIMED_STEPS:
                left = (problem.deadline - time.time()) / ((time.time() - began) / _TIMED_STEPS)
                epochs = max(1, min(epochs, int(left / a_pass)) if math.isfinite(left) else epochs)
                optimizer.steps = epochs * a_pass
            if problem.is_over():
                break
        epoch += 1
        if data.valid is None:
            best_epoch = epoch
            continue
        if epoch < epochs and epoch not in _looks(epochs) and not problem.is_over():
            continue
        net.eval()
        with torch.no_grad():
            now = float(plain(net(data.valid[0]), *data.valid[1:]))
        if now < best_loss:
            best_loss, best_epoch = now, epoch
            best_state = {k: v.clone() for k, v in net.state_dict().items()}
    if best_state is not None:
        net.load_state_dict(best_state)
    net.eval()
    return best_epoch or epoch
