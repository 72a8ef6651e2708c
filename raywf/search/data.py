"""The matrix that every trial shares, and which rows each fold fits and scores."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raywf.core.errors import SearchError
from raywf.core.ids import stable_number
from raywf.core.metrics import Metric
from raywf.core.records import Snapshot
from raywf.core.settings import GateSettings, SearchSettings
from raywf.models.encoding import Encoder, fit_encoder
from raywf.models.family import Problem, Rows
from raywf.search.grouped import hold_out, share_out
from raywf.search.learnable import check_labels, check_weights, no_fold, scorable

Index = NDArray[np.int64]
_MIN_FIT_ROWS = 20
_FEWEST_FOLDS = 2
_HOLD_OUT = 5  # one fold is a fifth of the rows
_MOST_YOUNG = 1 / 6  # of the rows before a cut that are left out as too young
REPEATED = 8  # folds a shuffle, where there are several shuffles


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Row indices to fit on and to score."""

    fit: Index
    score: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchData:
    """What goes to the object store once: encoded rows, labels, folds.

    `gate` are the rows that no fold touches: the newest block or pieces, or a stable share by key hash where
    there is no time. `rest` are all others; where there are times, those whose labels were known when it
    began (of a snapshot with a maturity all before it, less the purge), and those between its pieces.
    `asked` is how many folds were asked for: there are fewer where the metric is not defined on all.
    `times` and `known` (when the label was) are microseconds since 1970, shape ``(n_rows,)``, or None;
    `maturity` is the snapshot's, in microseconds.
    """

    rows: Rows
    times: Index | None
    known: Index | None
    folds: tuple[Fold, ...]
    gate: Index
    rest: Index
    task: str
    n_classes: int
    sizes: tuple[int, ...]
    quantile: float | None = None
    asked: int = 0
    maturity: int = 0

    def problem(self, *, threads: int = 1, deadline: float = float("inf"), seed: int = 0) -> Problem:
        """Return what a fit on these rows is told."""
        return Problem(
            task=self.task,
            n_classes=self.n_classes,
            sizes=self.sizes,
            quantile=self.quantile,
            threads=threads,
            deadline=deadline,
            seed=seed,
        )


def prepare_data(
    snapshot: Snapshot,
    table: pa.Table,
    *,
    search: SearchSettings,
    gate: GateSettings | None,
    metric: Metric,
) -> tuple[SearchData, Encoder]:
    """Encode a snapshot's table and lay out the gate block (none without `gate`) and the folds.

    Raises:
        ValidationError: if nothing can be learned from the labels, or a row's weight is none.
        SearchError: if there are too few rows for the folds.
    """
    encoder = fit_encoder(table, snapshot.columns)
    labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)
    times, known = _instants(table, "__time"), _instants(table, "__label_time")
    if not snapshot.has_time:
        times = known = None
    elif known is None:
        known = times
    groups, maturity = row_groups(table), round(snapshot.maturity_s * 1e6)
    held = _held(table, times, gate, groups)
    rest = np.flatnonzero(~held)
    if times is not None and known is not None and held.any():
        cut, purge = times[held].min(), search.purge // timedelta(microseconds=1)
        between = _between(rest, times, held, purge)
        # the champion that the proof is beside learned from rows as young as these
        before = rest[times[rest] < cut - purge] if maturity else rest[known[rest] <= cut]
        rest = np.union1d(before, between)
    check_labels(snapshot, labels, rest)
    as_they_are = any(model.input == "table" for model in search.models.values())
    columns = table.select([c.name for c in snapshot.columns]).combine_chunks() if as_they_are else None
    data = SearchData(
        rows=Rows(encoder.table(table), labels, row_weights(table, labels, search, metric), groups, columns),
        times=times,
        known=known,
        folds=(),
        gate=np.flatnonzero(held),
        rest=rest,
        task=snapshot.task,
        n_classes=len(snapshot.classes),
        sizes=encoder.sizes,
        quantile=metric.quantile,
        maturity=maturity,
    )
    data = _with_first_folds(data, search, metric)
    if not data.folds:
        raise no_fold(metric, labels[rest], snapshot.classes, folds=data.asked)
    return data, encoder


def _with_first_folds(data: SearchData, search: SearchSettings, metric: Metric) -> SearchData:
    """Return the data with as many folds as were asked for, or two, or one where rows are too few for two."""
    try:
        return with_folds(data, search, search.folds or _FEWEST_FOLDS, metric=metric)
    except SearchError:
        if search.folds is not None:
            raise
    return with_folds(data, search, 1, metric=metric)


def with_folds(
    data: SearchData, search: SearchSettings, count: int, *, metric: Metric | None = None
) -> SearchData:
    """Return the data with so many folds, less those on which the metric, if given, is not defined.

    Where there is no time, one is a single hold-out of a fifth of the rows, and a multiple of `REPEATED` are
    several shuffles' folds: each row is then scored once a shuffle. Of groups there are no more folds than
    groups, unless the settings say how many, and no shuffle that parts them as another does.

    Raises:
        SearchError: if there are too few rows for them.
    """
    if data.times is None or data.known is None:
        if search.folds is None and data.rows.groups is not None:
            count = _at_most(count, len(np.unique(data.rows.groups[data.rest])))
        folds = _unordered_folds(data, search.seed, count=count)
    else:
        folds = _ordered_folds(data, data.times, data.known, search, count=count)
    if min(len(f.fit) for f in folds) < _MIN_FIT_ROWS:
        raise _too_few("rows", len(data.rows.y), count)
    if metric is not None:
        folds = tuple(fold for fold in folds if _tells(data, fold, metric))
    return dataclasses.replace(data, folds=folds, asked=count)


def _too_few(what: str, found: int, count: int) -> SearchError:
    """Return the error that says what can be done: fewer folds, or more rows."""
    if count > 1:
        mend = "lower" if count > _FEWEST_FOLDS else "leave out"
        return SearchError(f"{found} {what} are too few for {count} folds; {mend} search.folds")
    needed = f"to fit on {_MIN_FIT_ROWS} of them and score others" if what == "rows" else "to hold some out"
    return SearchError(f"{found} {what} are too few {needed}; give more data")


def _tells(data: SearchData, fold: Fold, metric: Metric) -> bool:
    labels, groups = data.rows.y, data.rows.groups
    return scorable(metric, labels, fold.fit, fold.score, n_classes=data.n_classes, groups=groups)


def _instants(table: pa.Table, name: str) -> Index | None:
    if name not in table.column_names:
        return None
    return np.asarray(table.column(name).cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())


def row_groups(table: pa.Table) -> Index | None:
    """Return each row's group as a number; a row without one is a group of its own."""
    if "__group" not in table.column_names:
        return None
    names = table.column("__group").to_numpy(zero_copy_only=False)
    known = {name: stable_number(name) for name in set(names.tolist()) if name is not None}
    keys = table.column("__key").to_pylist()
    numbers = (known.get(name, key) for name, key in zip(names, keys, strict=True))
    return np.fromiter(numbers, np.int64, len(names))


def row_weights(
    table: pa.Table, labels: NDArray[np.float64], search: SearchSettings, metric: Metric
) -> NDArray[np.float64] | None:
    """Return how much each row counts, 1 in the mean; None where all count alike."""
    weights = np.ones(len(labels))
    if "__weight" in table.column_names:
        weights = np.asarray(table.column("__weight").to_numpy(), dtype=np.float64)
        check_weights(weights)
    if search.class_weight == "balanced":
        classes = labels.astype(int)
        totals = np.bincount(classes, weights)
        weights = weights / np.where(totals > 0, totals, 1.0)[classes]
    if metric.name == "mape":
        weights = weights / np.maximum(np.abs(labels), 1e-3 * np.median(np.abs(labels)) + 1e-12)
    return None if np.ptp(weights) == 0 else weights / weights.mean()


def _held(
    table: pa.Table, times: Index | None, gate: GateSettings | None, groups: Index | None
) -> NDArray[np.bool_]:
    if gate is None:
        return np.zeros(table.num_rows, dtype=bool)
    if times is None:
        keys = np.asarray(table.column("__key").to_numpy()) if groups is None else groups
        return hashed_share(keys, gate.newest, seed=0)
    return newest_block(times, gate)


def _fitted(before: Index, times: Index, known: Index, *, cut: int, maturity: int) -> Index:
    """Return the rows, of those before the cut, that a fit may have: their labels were known then.

    Where labels that come soon differ from those that come late, what was known then is no fair sample. The
    snapshot's rows are so old that nearly all labels are in it: taken are rows as old as the maturity, with
    labels that may have come after the cut; or, where those are few, all but the newest sixth.
    """
    if not maturity:
        return before[known[before] <= cut]
    oldest = np.sort(times[before])[: math.ceil((1 - _MOST_YOUNG) * len(before))]
    youngest = max(cut - maturity, oldest[-1] if len(oldest) else cut - maturity)
    return before[times[before] <= youngest]


def _between(rest: Index, times: Index, held: NDArray[np.bool_], purge: int) -> Index:
    """Return the rows between pieces of the gate's, less those within the purge of a held one."""
    edges = np.sort(times[held])
    between = rest[(times[rest] > edges[0]) & (times[rest] < edges[-1])]
    after = np.searchsorted(edges, times[between])
    near = np.minimum(times[between] - edges[after - 1], edges[after] - times[between])
    return np.asarray(between[near > purge])


def newest_block(times: Index, gate: GateSettings) -> NDArray[np.bool_]:
    """Mark the newest `gate.newest` share of the rows, at most `gate.max_rows`, cut between instants.

    In pieces they are every other one of twice as many rows, the newest held.
    """
    count = max(1, min(int(len(times) * gate.newest), gate.max_rows))
    if gate.pieces > 1:
        ordered = np.sort(times)[-2 * count :]
        places = np.linspace(0, len(ordered), 2 * gate.pieces, endpoint=False).astype(int)
        starts = np.unique(ordered[places])  # fewer where many rows are of one instant
        piece = np.searchsorted(starts, times, side="right")
        held = np.asarray((piece > 0) & ((len(starts) - piece) % 2 == 0))
        if len(starts) > 1 and held.sum() <= 1.5 * count:
            return held
    cut = np.partition(times, len(times) - count)[len(times) - count]
    block = times >= cut
    return np.asarray(times > cut if block.mean() > 2 * gate.newest else block)


def hashed_share(keys: Index, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Mark a share of rows by their key alone, so that a row stays in or out in every snapshot.

    >>> bool((hashed_share(np.arange(9), 0.5, seed=0) == hashed_share(np.arange(9), 0.5, seed=0)).all())
    True
    """
    mixed = keys.astype(np.uint64) ^ np.uint64(seed)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return np.asarray(mixed < np.uint64(int(share * (2**64 - 1))))


def _ordered_folds(
    data: SearchData, times: Index, known: Index, search: SearchSettings, *, count: int
) -> tuple[Fold, ...]:
    """Forward chaining: the newer half (of a single fold the newest quarter) in equal blocks, each scored by
    fits on rows that lie before its start less the purge, as `_fitted` has them.

    Sources: Bergmeir and Benitez, Information Sciences 2012; purging after de Prado, 2018.
    """
    rest = data.rest
    order = rest[np.argsort(times[rest], kind="stable")]
    ordered = times[order]
    purge = search.purge // timedelta(microseconds=1)
    first = len(order) // 2 if count > 1 else 3 * len(order) // 4
    edges = np.linspace(first, len(order), count + 1).astype(int)
    folds = []
    for start, end in itertools.pairwise(edges):
        if start >= len(order) or end <= start:
            continue
        before = order[: np.searchsorted(ordered, ordered[start] - purge, side="left")]
        fit = _fitted(before, times, known, cut=ordered[start], maturity=data.maturity)
        folds.append(Fold(fit=fit, score=order[start:end]))
    if not folds:
        raise _too_few("rows", len(rest), count)
    return tuple(folds)


def _at_most(count: int, groups: int) -> int:
    """Return how many folds so many groups bear, of as many shuffles as they were to be."""
    each = REPEATED if count % REPEATED == 0 else count
    return count if groups >= each else max(1, groups)


def _unordered_folds(data: SearchData, seed: int, *, count: int) -> tuple[Fold, ...]:
    groups, each = data.rows.groups, REPEATED if count % REPEATED == 0 else count
    seeds = [seed + 100 * repeat for repeat in range(count // each)]
    if groups is not None:
        apart: dict[frozenset[bytes], tuple[Fold, ...]] = {}
        for folds in (_grouped_folds(data, groups, s, count=each, asked=count) for s in seeds):
            apart.setdefault(frozenset(fold.score.tobytes() for fold in folds), folds)
        return tuple(fold for folds in apart.values() for fold in folds)
    if count == 1:
        return _shuffled_folds(data, seed, count=_HOLD_OUT)[:1]
    return tuple(fold for s in seeds for fold in _shuffled_folds(data, s, count=each))


def _shuffled_folds(data: SearchData, seed: int, *, count: int) -> tuple[Fold, ...]:
    """Shuffled folds, stratified by class."""
    shuffle = np.random.default_rng(seed).permutation(data.rest)
    order = shuffle[np.argsort(data.rows.y[shuffle], kind="stable")]
    place = np.arange(len(order)) % count
    if not data.n_classes:
        place = np.random.default_rng(seed + 1).permutation(place)
    return tuple(Fold(fit=np.sort(order[place != k]), score=np.sort(order[place == k])) for k in range(count))


def _grouped_folds(data: SearchData, groups: Index, seed: int, *, count: int, asked: int) -> tuple[Fold, ...]:
    """Folds of whole groups, alike in rows; one is a hold-out."""
    names, member, sizes = np.unique(groups[data.rest], return_inverse=True, return_counts=True)
    if len(names) < max(2, count):
        raise _too_few("groups", len(names), asked)
    if count == 1:
        place = 1 - hold_out(sizes, 1 / _HOLD_OUT, seed=seed)
    else:
        place = share_out(sizes, count, seed=seed)
    found = place[member]
    return tuple(Fold(fit=data.rest[found != k], score=data.rest[found == k]) for k in range(count))


def newest_instant(table: pa.Table) -> datetime | None:
    """Return the newest event time of a snapshot's table, or None without times."""
    if "__time" not in table.column_names:
        return None
    newest = pc.max(table.column("__time")).as_py()
    return newest.astimezone(UTC) if newest is not None else None
