"""Where the ensemble is worse than elsewhere: its loss by slice, with a guard against looking often."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from raywf.core.explanation import Slice, SliceReport
from raywf.core.metrics import Metric, bounded_loss
from raywf.search.explain.cuts import Cut
from raywf.search.explain.heldout import Held

LEAST_ROWS = 30
_Z = 1.959963984540054


def score_slices(held: Held, cuts: Iterable[Cut], *, metric: Metric, scale: float | None) -> SliceReport:
    """Score each slice that has enough rows, and so has the rest; the worst by shrunk excess come first.

    `scale` is that of `bounded_loss`. q-values are of Benjamini and Hochberg over all slices looked at:
    one-sided for the excess loss, two-sided for the bias.
    """
    losses = bounded_loss(held.labels, held.scores, scale=scale, quantile=metric.quantile)
    threshold = metric.best_threshold(held.labels, held.scores)
    found: dict[str, _Found] = {}
    too_small = 0
    for cut in cuts:
        counts = np.bincount(cut.places, minlength=len(cut.names))
        for place in np.flatnonzero(counts):
            rows, name = cut.places == place, f"{cut.column}: {cut.names[place]}"
            key = hashlib.sha256(np.packbits(rows).tobytes()).hexdigest()
            if counts[place] == len(losses):
                continue
            if min(counts[place], len(losses) - counts[place]) < LEAST_ROWS:
                too_small += int(counts[place] < LEAST_ROWS)
            elif key in found:
                found[key].same.append(name)
            else:
                found[key] = _measure(held.labels, held.scores, losses, rows, (cut.column, cut.names[place]))
                score = _score(held.take(rows), metric, threshold)
                found[key].slice = dataclasses.replace(found[key].slice, score=score)
    return SliceReport(
        rows=len(losses),
        score=_score(held, metric, threshold),
        loss=float(losses.mean()),
        too_small=too_small,
        slices=tuple(sorted(_judged(list(found.values())), key=lambda s: -s.shrunk)),
    )


@dataclasses.dataclass(slots=True)
class _Found:
    """A slice that is not judged yet, with the standard error of its excess and its bias in such errors."""

    slice: Slice
    error: float
    bias: float | None
    same: list[str]


def _score(held: Held, metric: Metric, threshold: float) -> float | None:
    found = metric.score(held.labels, held.scores, groups=held.groups, threshold=threshold)
    return float(found) if np.isfinite(found) else None


def _measure(
    all_labels: NDArray[np.float64],
    all_scores: NDArray[np.float64],
    losses: NDArray[np.float64],
    rows: NDArray[np.bool_],
    name: tuple[str, str],
) -> _Found:
    mine, others = losses[rows], losses[~rows]
    labels, scores = all_labels[rows], all_scores[rows]
    made = Slice(
        column=name[0],
        value=name[1],
        rows=len(mine),
        score=None,
        loss=float(mine.mean()),
        margin=_Z * _error(mine),
        excess=float(mine.mean() - others.mean()),
        shrunk=0.0,
        q=1.0,
    )
    bias = None
    if scores.shape[1] == 1:
        made = dataclasses.replace(
            made, label_mean=float(labels.mean()), predicted_mean=float(scores.mean()), bias_q=1.0
        )
        bias = float((labels - scores[:, 0]).mean() / max(_error(labels - scores[:, 0]), 1e-12))
    return _Found(made, float(np.hypot(_error(mine), _error(others))), bias, [])


def _judged(found: list[_Found]) -> Iterator[Slice]:
    """Yield the slices with shrunk excess and q-values."""
    if not found:
        return
    excess = np.array([f.slice.excess for f in found])
    errors = np.maximum([f.error for f in found], 1e-12)
    spread = max(0.0, float(np.mean(excess**2) - np.mean(errors**2)))
    shrunk = excess * spread / (spread + errors**2)
    q = false_discovery_control(ndtr(-excess / errors))
    biases = np.array([0.0 if f.bias is None else f.bias for f in found])
    bias_q = false_discovery_control(2 * ndtr(-np.abs(biases)))
    for i, one in enumerate(found):
        yield dataclasses.replace(
            one.slice,
            shrunk=float(shrunk[i]),
            q=float(q[i]),
            bias_q=None if one.bias is None else float(bias_q[i]),
            same=tuple(one.same),
        )


def _error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
