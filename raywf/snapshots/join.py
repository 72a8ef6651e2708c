"""Joins a view to the spine's rows: the small one is sent to every block, the large one is split by key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from numpy.typing import NDArray

from raywf.snapshots.asof import NO_ROW, Int, ViewRows, match_asof, match_key
from raywf.snapshots.convert import time_us
from raywf.snapshots.plan import TablePlan
from raywf.snapshots.prepare import FAR_PAST, KEY
from raywf.snapshots.sources import TASK_CPUS, count_parts

PART_BYTES = 128_000_000


@dataclass(frozen=True, slots=True)
class ViewJoin:
    """How one view is joined: its plan and the oldest event time that still counts."""

    plan: TablePlan
    max_age: timedelta | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns that the join adds."""
        return tuple(feature.name for feature in self.plan.features)


def join_view(rows: pa.Table, view: pa.Table, join: ViewJoin) -> pa.Table:
    """Append the view's features to the rows, each as it was known at the row's ``__time``.

    Raises:
        ValidationError: if the view has no times and a key of it occurs twice.

    """
    group, view_group = group_codes(rows, view, join.plan.keys)
    if "__event" in join.plan.times:
        event = time_us(view.column("__event"), missing=FAR_PAST)
        known = time_us(view.column("__known"), missing=FAR_PAST) if "__known" in join.plan.times else event
        time = time_us(rows.column("__time"), missing=FAR_PAST)
        age = None if join.max_age is None else join.max_age // timedelta(microseconds=1)
        match = match_asof(group, time, _keyed(ViewRows(view_group, event, known)), max_age_us=age)
        match = _unkeyed(match, view_group)
    else:
        match = _unkeyed(match_key(group, view_group[view_group >= 0], view=join.plan.table), view_group)
    taken = pa.array(match, mask=match == NO_ROW)
    for name in join.features:
        rows = rows.append_column(name, view.column(name).take(taken))
    return rows


def check_unique_keys(view: pa.Table, plan: TablePlan) -> None:
    """Check that a view without times holds each key once.

    Raises:
        ValidationError: if it does not.

    """
    if "__event" not in plan.times:
        codes, _ = group_codes(view, view.slice(0, 0), plan.keys)
        match_key(codes[:0], codes[codes >= 0], view=plan.table)


def group_codes(rows: pa.Table, view: pa.Table, keys: tuple[str, ...]) -> tuple[Int, Int]:
    """Code the rows' and the view's keys alike, exactly; -1 where a key is missing."""
    codes = np.zeros(rows.num_rows + view.num_rows, dtype=np.int64)
    missing = np.zeros(len(codes), dtype=bool)
    for key in keys:
        chunks = rows.column(KEY + key).chunks + view.column(KEY + key).chunks
        text = pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())
        coded = text.dictionary_encode()
        missing |= np.asarray(pc.is_null(text).to_numpy(zero_copy_only=False))
        column = pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        codes = codes * (len(coded.dictionary) + 1) + column
        if len(keys) > 1:
            codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    codes[missing] = -1
    return codes[: rows.num_rows], codes[rows.num_rows :]


@dataclass(frozen=True, slots=True)
class BroadcastJoins:
    """A Ray Data batch function: joins views that lie whole in the object store."""

    joins: tuple[ViewJoin, ...]
    views: tuple[ray.ObjectRef, ...]

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Append the features of all views."""
        for join, view in zip(self.joins, ray.get(list(self.views)), strict=True):
            rows = join_view(rows, view, join)
        return rows


@dataclass(frozen=True, slots=True)
class PartitionedJoin:
    """A Ray Data group function: one bucket of keys holds the rows and all that the view has for them."""

    join: ViewJoin
    columns: tuple[str, ...]

    def __call__(self, both: pa.Table) -> pa.Table:
        """Split the bucket into rows and view, restore the view's order and join."""
        is_view = both.column("__is_view")
        rows = both.filter(pc.invert(is_view)).select(list(self.columns))
        return join_view(rows, both.filter(is_view).sort_by("__order"), self.join)


def join_partitioned(
    rows: ray.data.Dataset, view: ray.data.Dataset, join: ViewJoin, *, schemas: tuple[pa.Schema, pa.Schema]
) -> ray.data.Dataset:
    """Split both by a hash of the keys, so that equal keys meet in one task, and join there.

    `schemas` are the rows' and the view's; the view has ``__order``, its row number. Rows lose their order.
    """
    both = pa.unify_schemas([*schemas, pa.schema([("__is_view", pa.bool_()), ("__bucket", pa.int64())])])
    size = sum(dataset.size_bytes() or 0 for dataset in (rows, view))
    buckets = max(2, count_parts(int(size), PART_BYTES))
    tag = {"keys": join.plan.keys, "buckets": buckets, "schema": both}
    parts = [
        dataset.map_batches(
            _tag,
            fn_kwargs={**tag, "is_view": flag},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
        )
        for dataset, flag in ((rows, False), (view, True))
    ]
    kernel = PartitionedJoin(join, tuple(schemas[0].names))
    united = parts[0].union(parts[1]).groupby("__bucket", num_partitions=buckets)
    return united.map_groups(kernel.__call__, batch_format="pyarrow", num_cpus=TASK_CPUS)


def _tag(
    table: pa.Table, *, keys: tuple[str, ...], buckets: int, schema: pa.Schema, is_view: bool
) -> pa.Table:
    hashed = np.zeros(table.num_rows, dtype=np.uint64)
    for key in keys:
        text = np.asarray(pc.fill_null(table.column(KEY + key), "").to_numpy(), dtype=object)
        hashed = hashed * np.uint64(31) + pd.util.hash_array(text, categorize=False)
    added = {
        "__is_view": pa.array(np.full(table.num_rows, is_view)),
        "__bucket": pa.array((hashed % np.uint64(buckets)).astype(np.int64)),
    }
    columns = {name: table.column(name) for name in table.column_names} | added
    absent = {field.name: pa.nulls(table.num_rows, field.type) for field in schema}
    return pa.table({**absent, **columns}).select(schema.names).cast(schema)


def _keyed(view: ViewRows) -> ViewRows:
    keep = view.group >= 0
    return ViewRows(view.group[keep], view.event[keep], view.known[keep])


def _unkeyed(match: Int, view_group: Int) -> NDArray[np.int64]:
    positions = np.flatnonzero(view_group >= 0)
    if len(positions) == 0:
        return match
    return np.where(match == NO_ROW, NO_ROW, positions[np.maximum(match, 0)])
