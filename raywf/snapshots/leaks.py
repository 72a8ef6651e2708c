"""Finds features that know the label: almost perfect alone, or filled only after the event.

A figure is a rank AUC (classes, one against the rest) or the absolute rank correlation (regression).
Categories and numbers of few values are encoded by the label's mean in the *other* half of the rows, so that
a column of unique values tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import rankdata

from raywf.core.records import Column
from raywf.snapshots.convert import time_us

Array = NDArray[np.float64]
MAX_ROWS = 50_000
_FEW = 50  # distinct values up to which a number is also tried as a category
_MIN_CLASS = 10  # rows of a class below which a figure means nothing
_MIN_FILLED = 0.05  # share of rows that a column must fill to be judged by its values
_PURE = 0.995
_CHANCE = 1e-6  # chance that a column filled at random meets one class only


@dataclass(frozen=True, slots=True)
class Leak:
    """A suspected column, the figure found and how the column tells the label."""

    column: str
    figure: float
    how: str


def find_leaks(
    table: pa.Table, columns: tuple[Column, ...], *, classes: int, bound: float
) -> tuple[Leak, ...]:
    """Return the suspects among the features of rows with ``__label`` and ``__key``, each at most once.

    `classes` is 0 for a regression; `bound` is the AUC or correlation from which a feature is suspect.
    """
    if table.num_rows > MAX_ROWS:
        newest = pc.sort_indices(table.column("__key"))  # the key is a hash: this is a sample
        table = table.take(newest[:MAX_ROWS])
    labels = table.column("__label").to_numpy().astype(np.float64)
    first_half = (np.asarray(table.column("__key").to_numpy()) >> 7) & 1 == 0
    targets = _targets(labels, classes)
    leaks = (_judge(table, column, targets, (first_half, bound)) for column in columns)
    return tuple(leak for leak in leaks if leak is not None)


def find_late_columns(known: pa.Table, pending: pa.Table, columns: tuple[Column, ...]) -> tuple[Leak, ...]:
    """Return columns that are empty while the label is unknown and filled where it is known.

    Only known rows from the pending rows' own time count: a feed that broke lately is empty for both.
    """
    if pending.num_rows < 30 or "__time" not in known.column_names:
        return ()
    since = time_us(pending.column("__time"), missing=0).min()
    peers = known.filter(pa.array(time_us(known.column("__time"), missing=0) >= since))
    if peers.num_rows < 30:
        return ()
    leaks = []
    for column in columns:
        early = 1 - pending.column(column.name).null_count / pending.num_rows
        late = 1 - peers.column(column.name).null_count / peers.num_rows
        if early <= 0.02 and late >= 0.5:
            how = (
                f"filled in {late:.0%} of the rows with a known label and {early:.0%} of those still pending"
            )
            leaks.append(Leak(column.name, late - early, how))
    return tuple(leaks)


def _targets(labels: Array, classes: int) -> list[Array]:
    if classes == 0:
        return [labels]
    chosen = [1] if classes == 2 else range(classes)
    targets = [(labels == index).astype(np.float64) for index in chosen]
    return [t for t in targets if min(t.sum(), len(t) - t.sum()) >= _MIN_CLASS]


def _judge(
    table: pa.Table, column: Column, targets: list[Array], split: tuple[NDArray[np.bool_], float]
) -> Leak | None:
    first_half, bound = split
    values = table.column(column.name)
    filled = np.asarray(pc.is_valid(values).to_numpy(), dtype=bool)
    is_class = all(set(np.unique(target)) <= {0.0, 1.0} for target in targets)
    if is_class and not filled.all():
        for target in targets:
            leak = _judge_filling(column.name, filled, target, bound)
            if leak is not None:
                return leak
    if filled.mean() < _MIN_FILLED or filled.sum() < 2 * _MIN_CLASS:
        return None
    views = list(_encodings(values.drop_null(), column))
    for target in targets:
        figure = max((_figure(view, target[filled], first_half[filled]) for view in views), default=0.0)
        if figure >= bound:
            name = "AUC" if is_class else "rank correlation"
            return Leak(column.name, figure, f"it alone predicts the label with {name} {figure:.4f}")
    return None


def _judge_filling(name: str, filled: NDArray[np.bool_], target: Array, bound: float) -> Leak | None:
    auc = 0.5 + abs(filled[target > 0].mean() - filled[target == 0].mean()) / 2
    if auc >= bound:
        return Leak(name, auc, f"whether it is filled predicts the label with AUC {auc:.4f}")
    for side in (target, 1 - target):
        base, count = side.mean(), int(filled.sum())
        if count < 3 * _MIN_CLASS or base > 0.9 or base**count > _CHANCE:
            continue
        purity = side[filled].mean()
        if purity >= _PURE:
            return Leak(name, purity, f"{purity:.1%} of the rows where it is filled are of one class")
    return None


def _encodings(values: pa.ChunkedArray, column: Column) -> Iterator[tuple[Array, bool]]:
    """Yield a column as numbers with whether these are codes of categories."""
    if column.kind != "category":
        numbers = pc.cast(values, pa.int64()) if column.kind == "time" else values
        array = np.asarray(numbers.to_numpy(), dtype=np.float64)
        yield rankdata(array), False
        distinct, codes = np.unique(array, return_inverse=True)
        if len(distinct) > _FEW or len(distinct) <= 2:
            return
    else:
        codes = values.combine_chunks().dictionary_encode().indices.to_numpy()
    yield codes.astype(np.float64), True


def _figure(view: tuple[Array, bool], target: Array, first_half: NDArray[np.bool_]) -> float:
    values, coded = view
    if not coded:
        return _strength(values, target)
    codes = values.astype(np.int64)
    parts = [_out_of_sample(codes, target, half) for half in (first_half, ~first_half)]
    return float(np.mean(parts))


def _out_of_sample(codes: NDArray[np.int64], target: Array, fit: NDArray[np.bool_]) -> float:
    if fit.sum() < _MIN_CLASS or (~fit).sum() < _MIN_CLASS:
        return 0.0
    size = int(codes.max()) + 1
    sums = np.bincount(codes[fit], weights=target[fit], minlength=size)
    counts = np.bincount(codes[fit], minlength=size)
    mean = (sums + target[fit].mean()) / (counts + 1)
    return _strength(rankdata(mean[codes[~fit]]), target[~fit])


def _strength(ranks: Array, target: Array) -> float:
    """Return the AUC, turned to be at least 0.5, of ranks for a 0/1 target; else the rank correlation."""
    distinct = np.unique(target)
    if len(distinct) < 2 or ranks.min() == ranks.max():
        return 0.0
    if len(distinct) > 2 or not np.array_equal(distinct, [0.0, 1.0]):
        return float(abs(np.corrcoef(ranks, rankdata(target))[0, 1]))
    positive = target > 0
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if min(n_pos, n_neg) < _MIN_CLASS // 2:
        return 0.0
    auc = (ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)
    return float(max(auc, 1 - auc))
