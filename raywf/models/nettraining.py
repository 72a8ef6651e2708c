"""Trains a small multilayer perceptron with torch, and gives its weights as numpy's arrays."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.adamw import adamw

from raywf.models.family import Problem
from raywf.models.torchnet import Dense

_TIMED_STEPS = 20  # after so many the time for the others is known
_SMOOTHING = 0.05

_Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def train_net(
    problem: Problem,
    rows: Dense,
    params: dict[str, Any],
    *,
    valid: Dense | None,
    batch: int,
    epochs: int,
) -> tuple[Layers, int]:
    """Return a net's layers, (weights ``(in, out)``, bias ``(out,)``) each, and the epochs that they took.

    Those are the epochs of the best validation loss; without validation, all.
    """
    torch.set_num_threads(problem.threads)
    torch.manual_seed(problem.seed)
    net = _net(rows.X.shape[1], problem, params)
    data = _Data(_tensors(rows), None if valid is None else _tensors(valid), batch)
    best = _train(net, problem, params, data, epochs)
    return _layers(net), best


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


def _layers(net: nn.Sequential) -> Layers:
    linear = [block for block in net if isinstance(block, nn.Linear)]
    return [(m.weight.detach().numpy().T.copy(), m.bias.detach().numpy().copy()) for m in linear]


def _tensors(rows: Dense) -> _Tensors:
    return torch.from_numpy(rows.X), torch.from_numpy(rows.y), torch.from_numpy(rows.weights)


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


@dataclass(frozen=True, slots=True)
class _Data:
    """Inputs, targets and weights, those held back for validation, rows a step."""

    rows: _Tensors
    valid: _Tensors | None
    batch: int


def _train(net: nn.Sequential, problem: Problem, params: dict[str, Any], data: _Data, epochs: int) -> int:
    """Train in place; return the epochs of the best validation loss (without validation, the whole ones).

    Only a few epochs are looked at: the best of all of them would look far better than it is.
    Where the deadline is near there are fewer epochs, so that the last wave still ends.
    """
    loss, plain = _loss(problem, smoothing=_SMOOTHING), _loss(problem, smoothing=0.0)
    X, y, weights = data.rows
    a_pass = -(-len(X) // data.batch)
    optimizer = _AdamW(list(net.parameters()), lr=params.get("lr", 0.01), steps=epochs * a_pass)
    order = torch.Generator().manual_seed(problem.seed)
    best_loss, best_epoch, best_state = float("inf"), 0, None
    began, epoch = time.time(), 0
    while epoch < epochs and not (epoch and problem.is_over()):
        net.train()
        for index in torch.randperm(len(X), generator=order).split(data.batch):
            loss(net(X[index]), y[index], weights[index]).backward()
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
