"""Greedy ensemble selection on out-of-fold scores (Caruana et al., ICML 2004) that minds the time for a row.

A candidate's share of the latency bound is added to its loss with a small weight, after HAPEns
(arXiv 2603.10582): of two that help alike the quicker one is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from raywf.core.metrics import Groups, Metric

STEPS = 25
_LEAST_COUNT = 0.5  # of steps: what is left of a former member below that is not worth its fits
_LEAST_GAIN = 1e-9  # of the best single loss: less is rounding
_LATENCY_WEIGHT = 2e-3  # of the best single loss, for a member that takes the whole bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Out-of-fold scores ``(n_rows, k)`` by trial id, rows in the order of `labels`; `blocks` are the folds.

    `groups` are the rows', for a metric of groups. `costs` are the shares of the latency bound that one model
    of each takes, `times` the shares of the time left that making it takes; missing ones are free.
    """

    labels: NDArray[np.float64]
    scores: Mapping[str, NDArray[np.float32]]
    blocks: Sequence[slice]
    costs: Mapping[str, float]
    groups: Groups = None
    times: Mapping[str, float] = field(default_factory=dict)

    def parts(self) -> list[tuple[slice, NDArray[np.float64], Groups]]:
        """Return each block with its labels and groups."""
        groups = self.groups
        return [(b, self.labels[b], None if groups is None else groups[b]) for b in self.blocks]

    def in_time(self, chosen: Iterable[str], name: str) -> bool:
        """Whether there is time to make another member beside those chosen."""
        return sum(self.times.get(n, 0.0) for n in {*chosen, name}) <= 1.0

    def have_room(self, chosen: Iterable[str], name: str) -> bool:
        """Whether there is time for another member beside those chosen, to make it and within a row's.

        One alone may take what it takes for a row.
        """
        together = {*chosen, name}
        is_quick = len(together) == 1 or sum(self.costs.get(n, 0.0) for n in together) <= 1.0
        return is_quick and self.in_time(chosen, name)


def select_ensemble(
    candidates: Candidates,
    metric: Metric,
    *,
    steps: int = STEPS,
    prior: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return weights by trial id that minimise the mean of the metric's loss over the folds' blocks.

    Starts from the best single trial and adds, with replacement, the one that helps most, as long as there is
    time to make it and within the latency bound; the best prefix is kept. With `prior` weights it starts from
    their mixture, which counts as many steps as those to come: what was chosen on other rows before tells as
    much as what is best on these. Where there is no time for any trial, that is not minded.
    """
    scores, parts = candidates.scores, candidates.parts()
    if not any(candidates.in_time((), name) for name in scores):
        candidates = replace(candidates, times={})

    def loss(mix: NDArray[np.float64]) -> float:
        return float(np.mean([metric.best_loss(labels, mix[b], groups=g) for b, labels, g in parts]))

    names = sorted(name for name in scores if candidates.in_time((), name))
    alone = {n: loss(np.asarray(scores[n], dtype=np.float64)) for n in names}
    scale = _scale(list(alone.values()))
    unit = _LATENCY_WEIGHT * scale
    counts = _begin(candidates, prior or {}, steps)
    total = sum((c * scores[n] for n, c in counts.items()), start=np.zeros(scores[names[0]].shape))
    spent = sum(candidates.costs.get(name, 0.0) for name in counts)
    head = round(sum(counts.values()))
    best_loss, best = (loss(total / head) + unit * spent if head else np.inf), dict(counts)
    for step in range(head + 1, head + steps + 1):
        options = []
        for name in names:
            new = name not in counts
            if new and not candidates.have_room(counts, name):
                continue
            price = unit * (spent + new * candidates.costs.get(name, 0.0))
            mixed = loss((total + scores[name]) / step) if step > 1 else alone[name]
            options.append((mixed + price, new, name))
        value, new, name = min(options)
        spent += new * candidates.costs.get(name, 0.0)
        counts[name] = counts.get(name, 0.0) + 1
        total = total + scores[name]
        if value < best_loss - _LEAST_GAIN * scale:
            best_loss, best = value, dict(counts)
    best = {name: count for name, count in best.items() if count >= _LEAST_COUNT} or best
    size = sum(best.values())
    return {name: count / size for name, count in best.items()}


def _begin(candidates: Candidates, prior: Mapping[str, float], steps: int) -> dict[str, float]:
    """Return so many steps shared out to the prior members, the heaviest of them that there is room for."""
    found: dict[str, float] = {}
    for name, weight in sorted(prior.items(), key=lambda item: (-item[1], item[0])):
        if name in candidates.scores and candidates.have_room(found, name):
            found[name] = weight
    return {name: steps * weight / sum(found.values()) for name, weight in found.items()}


def _scale(losses: Sequence[float]) -> float:
    """Return what a loss of this metric amounts to: its distance from a perfect score of 1, or its own size.

    >>> [_scale([loss, 9.0]) for loss in (-0.75, 0.5, -2300.0)]
    [0.25, 0.5, 2300.0]
    """
    best = min(losses)
    return 1 + best if -1 <= best < 0 else abs(best)


def most_candidates(rows: int) -> int:
    """Return how many trials an ensemble may choose from: few where few rows tell them apart.

    >>> [most_candidates(n) for n in (500, 5_000, 50_000)]
    [7, 22, 40]
    """
    return int(np.clip(7 + (rows - 500) * 33 / 9_500, 5, 40))


def keep_largest(weights: Mapping[str, float], most: int) -> dict[str, float]:
    """Return the `most` heaviest weights, scaled to sum to 1.

    >>> keep_largest({"a": 0.5, "b": 0.3, "c": 0.2}, 1)
    {'a': 1.0}
    """
    kept = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:most]
    total = sum(w for _, w in kept)
    return {name: w / total for name, w in kept}
