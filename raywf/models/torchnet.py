"""A small multilayer perceptron: trained by torch, saved as safetensors, served by numpy alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
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
from raywf.models.family import Cost, Model, Problem, Rows, Scores

_BATCH = 512
_PATIENCE = 4


@dataclass(slots=True)
class TorchNetModel:
    """Layers as (weights ``(in, out)``, bias ``(out,)``), ReLU between; regression outputs are rescaled."""

    design: Design
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    center: float
    spread: float
    task: str
    rounds: int = 0

    def predict(self, X: Matrix) -> Scores:
        hidden = self.design.transform(X)
        for i, (weights, bias) in enumerate(self.layers):
            hidden = hidden @ weights + bias
            if i < len(self.layers) - 1:
                hidden = np.maximum(hidden, 0)
        return activate(hidden.astype(np.float64), self.task) * self.spread + self.center

    def save(self, folder: Path) -> None:
        arrays: dict[str, Any] = {"scale": np.asarray([self.center, self.spread]), **self.design.arrays()}
        for i, (weights, bias) in enumerate(self.layers):
            arrays[f"{i}.weights"], arrays[f"{i}.bias"] = weights, bias
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "model.safetensors")


class TorchNetFamily:
    """AdamW with a decaying step on the dense design; early stopping by epochs."""

    name = "torch"
    cost = Cost(per_round=0.0, whole=6.0)
    merges = False

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        torch.set_num_threads(problem.threads)
        torch.manual_seed(problem.seed)
        design = fit_design(rows.X, problem.sizes)
        center, spread = 0.0, 1.0
        if problem.task == "regression":
            center, spread = float(rows.y.mean()), float(rows.y.std()) or 1.0
        net = _net(design.width, problem, params)
        epochs = rounds or params.get("epochs", 12)
        best = _train(net, problem, params, (design, rows, valid, center, spread), epochs)
        return TorchNetModel(design, _layers(net), center, spread, problem.task, best)

    def load(self, problem: Problem, folder: Path) -> Model:
        arrays = load_file(folder / "model.safetensors")
        count = sum(name.endswith(".bias") for name in arrays)
        layers = [(arrays[f"{i}.weights"], arrays[f"{i}.bias"]) for i in range(count)]
        center, spread = (float(v) for v in arrays["scale"])
        return TorchNetModel(design_from(arrays), layers, center, spread, problem.task)

    def merge(self, models: Sequence[Any]) -> Model:
        raise ValueError("each fold scales its inputs otherwise")


class _AdamW:
    """AdamW with a cosine-decaying step, by torch's own functional form.

    `torch.optim.AdamW` would import torch's compiler at its first use: two seconds in each new worker.
    """

    def __init__(self, weights: list[torch.Tensor], *, lr: float, steps: int) -> None:
        self._weights, self._lr, self._steps, self._done = weights, lr, steps, 0
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
                beta2=0.999,
                lr=self._lr * (1 + math.cos(math.pi * self._done / self._steps)) / 2,
                weight_decay=1e-3,
                eps=1e-8,
                maximize=False,
            )
        self._done += 1
        for weight in self._weights:
            weight.grad = None


def _net(width: int, problem: Problem, params: dict[str, Any]) -> nn.Sequential:
    sizes = [width, *params.get("hidden", (128, 64))]
    blocks: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        blocks += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(params.get("dropout", 0.1))]
    return nn.Sequential(*blocks, nn.Linear(sizes[-1], problem.width))


def _layers(net: nn.Sequential) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    linear = [block for block in net if isinstance(block, nn.Linear)]
    return [(m.weight.detach().numpy().T.copy(), m.bias.detach().numpy().copy()) for m in linear]


def _loss(problem: Problem) -> Any:
    if problem.task == "binary":
        return lambda out, y: nn.functional.binary_cross_entropy_with_logits(out[:, 0], y)
    if problem.task == "multiclass":
        return lambda out, y: nn.functional.cross_entropy(out, y.long())
    return lambda out, y: nn.functional.smooth_l1_loss(out[:, 0], y)


def _train(
    net: nn.Sequential,
    problem: Problem,
    params: dict[str, Any],
    data: tuple[Design, Rows, Rows | None, float, float],
    epochs: int,
) -> int:
    """Train in place; return the epochs of the best validation loss (without validation, the whole ones)."""
    design, rows, valid, center, spread = data
    X = torch.from_numpy(design.transform(rows.X))
    y = torch.from_numpy(((rows.y - center) / spread).astype(np.float32))
    held = None
    if valid is not None:
        held = (
            torch.from_numpy(design.transform(valid.X)),
            torch.from_numpy(((valid.y - center) / spread).astype(np.float32)),
        )
    loss = _loss(problem)
    steps = epochs * (len(X) // _BATCH + 1)
    optimizer = _AdamW(list(net.parameters()), lr=params.get("lr", 2e-3), steps=steps)
    order = torch.Generator().manual_seed(problem.seed)
    best_loss, best_epoch, best_state = float("inf"), 0, None
    for epoch in range(1, epochs + 1):
        net.train()
        for index in torch.randperm(len(X), generator=order).split(_BATCH):
            loss(net(X[index]), y[index]).backward()
            optimizer.step()
            if problem.is_over():
                break
        if held is None:
            best_epoch = epoch - problem.is_over()
        else:
            net.eval()
            with torch.no_grad():
                now = float(loss(net(held[0]), held[1]))
            if now < best_loss:
                best_loss, best_epoch = now, epoch
                best_state = {k: v.clone() for k, v in net.state_dict().items()}
        if problem.is_over() or (held is not None and epoch - best_epoch >= _PATIENCE):
            break
    if best_state is not None:
        net.load_state_dict(best_state)
    net.eval()
    return best_epoch
