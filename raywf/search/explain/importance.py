"""Permutation importance of a bundle (Breiman, Machine Learning 2001), and columns that tell the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from raywf.core.errors import SearchError
from raywf.core.metrics import Metric
from raywf.core.records import Importance, ImportanceReport
from raywf.models.bundle import Predictor
from raywf.models.encoding import Encoder
from raywf.models.family import Rows

REPEATS = 5
_ALIKE = 0.8  # of the association, in [0, 1]
_COMPARED = 30
_MOST_VALUES = 60


def permutation_importance(
    predictor: Predictor, rows: Rows, metric: Metric, *, held: bool, seed: int, repeats: int = REPEATS
) -> ImportanceReport:
    """Measure how the metric suffers when a column's values are shuffled among the rows.

    A column that repeats another seems worthless alone, since the other still tells: such columns are
    measured together as well, as `groups`.

    Raises:
        SearchError: if the metric is not defined on the rows, as with one class only.
    """
    base = metric.loss(rows.y, predictor.predict_matrix(rows.X))
    if not np.isfinite(base):
        raise SearchError(f"{metric.name} is not defined on the {len(rows.y)} rows for importance")
    places = encoded_places(predictor.encoder)

    def measure(names: Sequence[str]) -> Importance:
        columns = [place for name in names for place in places[name]]
        draw = np.random.default_rng((seed, *columns))
        drops = []
        shuffled = rows.X.copy()
        for _ in range(repeats):
            shuffled[:, columns] = rows.X[draw.permutation(len(rows.y))][:, columns]
            drops.append(metric.loss(rows.y, predictor.predict_matrix(shuffled)) - base)
        return Importance(columns=tuple(names), drop=float(np.mean(drops)), sd=float(np.std(drops, ddof=1)))

    single = sorted((measure([name]) for name in places), key=lambda i: -i.drop)
    leading = [i.columns[0] for i in single[:_COMPARED]]
    groups = [measure(names) for names in alike_columns(predictor.encoder, rows.X, leading)]
    return ImportanceReport(
        rows=len(rows.y),
        held=held,
        score=-base if metric.greater_is_better else base,
        repeats=repeats,
        columns=tuple(single),
        groups=tuple(sorted(groups, key=lambda i: -i.drop)),
    )


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
