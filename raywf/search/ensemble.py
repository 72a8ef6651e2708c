"""Greedy ensemble selection on out-of-fold scores (Caruana et al., ICML 2004)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raywf.core.metrics import Metric

STEPS = 25


def select_ensemble(
    labels: NDArray[np.float64],
    scores: Mapping[str, NDArray[np.float32]],
    metric: Metric,
    *,
    blocks: Sequence[slice],
    steps: int = STEPS,
) -> dict[str, float]:
    """Return weights by trial id that minimise the mean of the metric's loss over the folds' blocks.

    Starts from the best single trial and adds, with replacement, the one that helps most; the best prefix is
    kept. `scores` hold ``(n_rows, k)`` each, rows in the order of `labels`; `blocks` cut them into folds.
    """

    def loss(mix: NDArray[np.float64]) -> float:
        return float(np.mean([metric.loss(labels[b], mix[b]) for b in blocks]))

    names = sorted(scores)
    counts = dict.fromkeys(names, 0)
    total: NDArray[np.float64] = np.zeros_like(next(iter(scores.values())), dtype=np.float64)
    best_loss, best = np.inf, dict(counts)
    for step in range(1, steps + 1):
        trials = [(loss((total + scores[n]) / step), counts[n] == 0, n) for n in names]
        value, _new, name = min(trials)
        counts[name] += 1
        total = total + scores[name]
        if value < best_loss - 1e-9:
            best_loss, best = value, dict(counts)
    picked = {n: c for n, c in best.items() if c}
    size = sum(picked.values())
    return {n: c / size for n, c in picked.items()}


def keep_largest(weights: Mapping[str, float], most: int) -> dict[str, float]:
    """Return the `most` heaviest weights, scaled to sum to 1.

    >>> keep_largest({"a": 0.5, "b": 0.3, "c": 0.2}, 1)
    {'a': 1.0}
    """
    kept = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:most]
    total = sum(w for _, w in kept)
    return {name: w / total for name, w in kept}
