"""The matrix that every trial shares, and which rows each fold fits and scores."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raywf.core.errors import SearchError
from raywf.core.records import Snapshot
from raywf.core.settings import GateSettings, SearchSettings
from raywf.models.encoding import Encoder, fit_encoder
from raywf.models.family import Rows

Index = NDArray[np.int64]
_MIN_FIT_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Row indices to fit on and to score."""

    fit: Index
    score: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchData:
    """What goes to the object store once: encoded rows, labels, folds.

    `gate` are the rows that no fold touches: the newest block, or a stable share by key hash where there is
    no time. `rest` are all others; where there are times, those whose labels were known when it began.
    `times` are microseconds since 1970, shape ``(n_rows,)``, or None.
    """

    rows: Rows
    times: Index | None
    folds: tuple[Fold, ...]
    gate: Index
    rest: Index
    task: str
    n_classes: int
    sizes: tuple[int, ...]


def prepare_data(
    snapshot: Snapshot, table: pa.Table, *, search: SearchSettings, gate: GateSettings
) -> tuple[SearchData, Encoder]:
    """Encode a snapshot's table and lay out the gate block and the folds.

    Raises:
        SearchError: if there are too few rows for the folds.
    """
    encoder = fit_encoder(table, snapshot.columns)
    labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)
    times = None
    if snapshot.has_time:
        times = np.asarray(table.column("__time").cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())
    keys = np.asarray(table.column("__key").to_numpy())
    known = None
    if "__label_time" in table.column_names:
        stamps = table.column("__label_time").cast(pa.timestamp("us", "UTC"))
        known = np.asarray(stamps.cast(pa.int64()).to_numpy())
    if times is None:
        held = hashed_share(keys, gate.newest, seed=0)
        rest = np.flatnonzero(~held)
        folds = _shuffled_folds(labels, rest, search, classes=len(snapshot.classes))
    else:
        held = newest_block(times, gate)
        known = times if known is None else known
        begins = times[held].min() if held.any() else times.min()
        rest = np.flatnonzero(~held & (known <= begins))
        folds = _ordered_folds(times, known, rest, search)
    if min(len(f.fit) for f in folds) < _MIN_FIT_ROWS:
        raise SearchError(f"{len(labels)} rows are too few for {search.folds} folds; lower search.folds")
    data = SearchData(
        rows=Rows(encoder.table(table), labels),
        times=times,
        folds=folds,
        gate=np.flatnonzero(held),
        rest=rest,
        task=snapshot.task,
        n_classes=len(snapshot.classes),
        sizes=encoder.sizes,
    )
    return data, encoder


def newest_block(times: Index, gate: GateSettings) -> NDArray[np.bool_]:
    """Mark the newest `gate.newest` share of the rows, at most `gate.max_rows`, cut between instants."""
    count = max(1, min(int(len(times) * gate.newest), gate.max_rows))
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


def _ordered_folds(times: Index, known: Index, rest: Index, search: SearchSettings) -> tuple[Fold, ...]:
    """Forward chaining: the newer half in equal blocks, each scored by fits on rows that lie before its
    start less the purge and whose labels were known by then.

    Sources: Bergmeir and Benitez, Information Sciences 2012; purging after de Prado, 2018.
    """
    order = rest[np.argsort(times[rest], kind="stable")]
    ordered = times[order]
    purge = search.purge // timedelta(microseconds=1)
    edges = np.linspace(len(order) // 2, len(order), search.folds + 1).astype(int)
    folds = []
    for start, end in itertools.pairwise(edges):
        if start >= len(order) or end <= start:
            continue
        before = order[: np.searchsorted(ordered, ordered[start] - purge, side="left")]
        folds.append(Fold(fit=before[known[before] <= ordered[start]], score=order[start:end]))
    if not folds:
        raise SearchError(f"{len(rest)} rows are too few for {search.folds} folds; lower search.folds")
    return tuple(folds)


def _shuffled_folds(
    labels: NDArray[np.float64], rest: Index, search: SearchSettings, *, classes: int
) -> tuple[Fold, ...]:
    """Shuffled folds, stratified by class (by rank of the value for regression)."""
    shuffle = np.random.default_rng(search.seed).permutation(rest)
    order = shuffle[np.argsort(labels[shuffle], kind="stable")]
    place = np.arange(len(order)) % search.folds
    if not classes:
        place = np.random.default_rng(search.seed + 1).permutation(place)
    return tuple(
        Fold(fit=np.sort(order[place != k]), score=np.sort(order[place == k])) for k in range(search.folds)
    )


def newest_instant(table: pa.Table) -> datetime | None:
    """Return the newest event time of a snapshot's table, or None without times."""
    if "__time" not in table.column_names:
        return None
    newest = pc.max(table.column("__time")).as_py()
    return newest.astimezone(UTC) if newest is not None else None
