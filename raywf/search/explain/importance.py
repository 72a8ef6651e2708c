"""Permutation importance (Breiman, Machine Learning 2001), and columns that tell the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from raywf.core.errors import SearchError
from raywf.core.explanation import Importance, ImportanceReport
from raywf.core.metrics import Metric
from raywf.models.encoding import Encoder, Matrix
from raywf.search.explain.blocks import Block

REPEATS = 5
_ALIKE = 0.8  # of the association, in [0, 1]
_COMPARED = 30
_MOST_VALUES = 60


@dataclass(frozen=True, slots=True)
class Ground:
    """The blocks of rows, where they come from, and the share of the ensemble that answers them."""

    blocks: Sequence[Block]
    source: Literal["gate", "folds", "fitted"]
    share: float = 1.0


def permutation_importance(
    ground: Ground,
    encoder: Encoder,
    metric: Metric,
    *,
    seed: int,
    repeats: int = REPEATS,
    tick: Callable[[str], None] = lambda _text: None,
) -> ImportanceReport:
    """Measure how the metric suffers when a column's values are shuffled among the rows of each block.

    The metric is the mean over the blocks. A column that repeats another seems worthless alone, since the
    other still tells: such columns are measured together as well, as `groups`. `tick` hears of each column.

    Raises:
        SearchError: if the metric is not defined on the rows, as with one class only.
    """
    blocks = [b for b in ground.blocks if np.isfinite(_loss(b, b.rows.X, metric))]
    if not blocks:
        raise SearchError(f"no importance: {metric.name} is not defined on the rows for it")
    places, rows = encoded_places(encoder), np.concatenate([b.rows.X for b in blocks])
    base = float(np.mean([_loss(b, b.rows.X, metric) for b in blocks]))

    def measure(names: Sequence[str]) -> Importance:
        columns = [place for name in names for place in places[name]]
        tick(" + ".join(names))
        found = [
            _shuffled_losses(block, columns, metric, seeds=(seed, number, *columns), repeats=repeats)
            for number, block in enumerate(blocks)
        ]
        drops = np.mean(found, axis=0) - base
        return Importance(columns=tuple(names), drop=float(drops.mean()), sd=float(drops.std(ddof=1)))

    single = sorted((measure([name]) for name in places), key=lambda i: -i.drop)
    leading = [i.columns[0] for i in single[:_COMPARED]]
    groups = [measure(names) for names in alike_columns(encoder, rows, leading)]
    return ImportanceReport(
        rows=len(rows),
        source=ground.source,
        share=ground.share,
        score=-base if metric.greater_is_better else base,
        repeats=repeats,
        columns=tuple(single),
        groups=tuple(sorted(groups, key=lambda i: -i.drop)),
    )


def _shuffled_losses(
    block: Block, columns: list[int], metric: Metric, *, seeds: tuple[int, ...], repeats: int
) -> list[float]:
    draw, shuffled, losses = np.random.default_rng(seeds), block.rows.X.copy(), []
    for _ in range(repeats):
        shuffled[:, columns] = block.rows.X[draw.permutation(len(shuffled))][:, columns]
        losses.append(_loss(block, shuffled, metric))
    return losses


def _loss(block: Block, X: Matrix, metric: Metric) -> float:
    return metric.best_loss(block.rows.y, block.predict(X), groups=block.rows.groups)


def encoded_places(encoder: Encoder) -> dict[str, list[int]]:
    """Return the encoded columns of each column; an instant has several."""
    places: dict[str, list[int]] = {}
    at = 0
    for column in encoder.columns:
        width = 4 if column.kind == "time" else 1
        places[column.name] = list(range(at, at + width))
        at += width
    return places


def alike_columns(encoder: Encoder, X: NDArray[np.float32], names: Sequence[str]) -> list[list[str]]:
    """Return groups of the named columns, joined by pairs whose association is at least 0.8.

    Rank correlation of numbers, Cramer's V of categories, the correlation ratio of one with the other.
    """
    places, sizes = encoded_places(encoder), encoder.sizes
    group = {name: {name} for name in names}
    for first, second in itertools.combinations(names, 2):
        a, b = places[first][0], places[second][0]
        if group[first] is not group[second] and association(X[:, a], X[:, b], sizes[a], sizes[b]) >= _ALIKE:
            joined = group[first] | group[second]
            group.update(dict.fromkeys(joined, joined))
    made = {id(g): sorted(g, key=list(names).index) for g in group.values() if len(g) > 1}
    return list(made.values())


def association(a: NDArray[np.float32], b: NDArray[np.float32], size_a: int, size_b: int) -> float:
    """Return how much one column tells of the other, in [0, 1]; 0 where it cannot be said.

    Sizes are the numbers of categories, 0 for a number.

    >>> x = np.arange(9, dtype=np.float32)
    >>> association(x, -(x**3), 0, 0)
    1.0
    """
    if max(size_a, size_b) > _MOST_VALUES:
        return 0.0
    if size_a and size_b:
        return _cramers_v(a, b, size_a, size_b)
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 3 or a.min() == a.max() or b.min() == b.max():
        return 0.0
    if size_a or size_b:
        return _correlation_ratio(a, rankdata(b)) if size_a else _correlation_ratio(b, rankdata(a))
    return round(float(abs(np.corrcoef(rankdata(a), rankdata(b))[0, 1])), 9)


def _cramers_v(a: NDArray[np.float32], b: NDArray[np.float32], size_a: int, size_b: int) -> float:
    left, right = (np.where(np.isnan(c), s, c).astype(int) for c, s in ((a, size_a), (b, size_b)))
    seen = np.bincount(left * (size_b + 1) + right, minlength=(size_a + 1) * (size_b + 1))
    crossed = seen.reshape(size_a + 1, size_b + 1).astype(np.float64)
    crossed = crossed[crossed.sum(axis=1) > 0][:, crossed.sum(axis=0) > 0]
    least = min(crossed.shape) - 1
    if least == 0:
        return 0.0
    expected = np.outer(crossed.sum(axis=1), crossed.sum(axis=0)) / crossed.sum()
    return float(np.sqrt(((crossed - expected) ** 2 / expected).sum() / crossed.sum() / least))


def _correlation_ratio(codes: NDArray[np.float32], values: NDArray[np.float64]) -> float:
    places = codes.astype(int)
    counts = np.bincount(places)
    means = np.bincount(places, weights=values) / np.maximum(counts, 1)
    between = float((counts * (means - values.mean()) ** 2).sum())
    return float(np.sqrt(between / ((values - values.mean()) ** 2).sum()))
