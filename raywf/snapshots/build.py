"""Builds a snapshot: join, check, hash, profile, write; building the same again returns what is there."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data.datasource import FilenameProvider

from raywf.core.codec import encode
from raywf.core.ids import digest_bytes, stable_id
from raywf.core.records import Column, Snapshot
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.snapshots.assemble import EPOCH, Limits, Rows, assemble, microseconds
from raywf.snapshots.blocks import Blocks, to_blocks
from raywf.snapshots.catalog import commit_snapshot, find_snapshot, snapshot_path, sort_rows
from raywf.snapshots.checks import Content, check_content, check_rows
from raywf.snapshots.convert import time_us
from raywf.snapshots.digest import add_sums, content_sums, format_digest
from raywf.snapshots.labels import (
    add_counts,
    check_values,
    count_labels,
    encode_labels,
    find_classes,
    known_rows,
    pending_rows,
)
from raywf.snapshots.maturity import check_maturity, find_maturity, mature_rows
from raywf.snapshots.prepare import RESERVED
from raywf.snapshots.profile import profile_table
from raywf.snapshots.sources import data_context

SAMPLE_ROWS, TESTED_ROWS = 500_000, 200_000
_CODE = (
    "asof.py",
    "assemble.py",
    "convert.py",
    "join.py",
    "labels.py",
    "maturity.py",
    "plan.py",
    "prepare.py",
)


def build_snapshot(
    workflow: Workflow, *, as_of: datetime | None = None, limits: Limits | None = None
) -> Snapshot:
    """Build the workflow's snapshot as of an instant of event time; Ray must be initialised.

    `as_of` (UTC where naive) defaults to now and is ignored where the spine has no event
    time. Rows hold what was known at their event time; labels are those known at `as_of`,
    of rows as old as `spine.maturity`.
    Where the joined rows are larger than ``limits.gather_bytes``, column checks and profiles
    rest on a sample of about 500,000 rows.

    Raises:
        SourceError: if a table cannot be read or lacks a column.
        ValidationError: if a check refused the data; nothing is written then.

    """
    as_of = _aware(as_of or datetime.now(UTC)) if workflow.spine.event_time else None
    window = workflow.validate.window
    after = as_of - window if as_of and window else None
    limits = limits or Limits()
    rows = assemble(workflow, until=as_of, after=after, limits=limits)
    blocks = to_blocks(rows.dataset, gather_bytes=limits.gather_bytes)
    known = blocks.transform(known_rows, microseconds(as_of))
    counts = add_counts(known.reduce(count_labels))
    check_rows(counts.rows, workflow)
    sample = _sample(known, counts.rows)
    tested = encode_labels(_share_of_rows(sample, TESTED_ROWS / counts.rows), find_classes(counts, workflow))
    maturity = find_maturity(tested, workflow, as_of=as_of)
    mature = known.transform(mature_rows, maturity.until_us) if maturity.age else known
    left = add_counts(mature.reduce(count_labels))
    told = check_maturity(maturity, workflow, rows=left.rows, left_out=counts.rows - left.rows)
    classes = find_classes(left, workflow)
    sample = known_rows(encode_labels(sample, classes), None)  # without classes that are all too young
    keys, pending = np.concatenate(known.reduce(_keys)), blocks.transform(pending_rows, microseconds(as_of))
    content = Content(sample, _sample(pending, len(keys)), keys, left, classes, rows.columns)
    valued = check_values(classes, workflow)
    warnings = (*rows.warnings, *check_content(content, workflow), *told, *valued)
    final = mature.transform(encode_labels, classes).transform(_final, rows.columns)
    snapshot = _describe(workflow, rows, final, as_of=as_of, classes=classes)
    snapshot = replace(snapshot, maturity_s=maturity.wanted.total_seconds())
    store = Store(workflow.stores.root)
    there = find_snapshot(store, workflow.name, snapshot.id)
    if there is not None:
        return there
    profile = profile_table(_sample(final, snapshot.rows), rows.columns)
    snapshot = replace(snapshot, profile=profile, warnings=warnings)
    _write(store, snapshot, final)
    commit_snapshot(store, snapshot)
    return snapshot


class PartNames(FilenameProvider):  # type: ignore[misc]  # Ray is untyped here
    """Names a large snapshot's files ``part-<task>-<write>.parquet``."""

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        """Return the name, unique to the task of this write."""
        return f"part-{task_index:06}-{write_uuid}.parquet"


def feature_code(workflow: Workflow) -> str:
    """Return a digest of all that decides a row's values but the tables: settings and the joining modules."""
    settings = encode(workflow)
    spine = {key: value for key, value in settings["spine"].items() if key != "path"}
    features = settings["features"]
    for view in features["views"].values():
        del view["path"]
    folder = files("raywf.snapshots")
    code = [digest_bytes((folder / name).read_bytes()) for name in _CODE]
    return stable_id(workflow.task, spine, features, settings["validate"]["window"], code, length=32)


def _describe(
    workflow: Workflow, rows: Rows, final: Blocks, *, as_of: datetime | None, classes: tuple[str, ...]
) -> Snapshot:
    parts = final.reduce(_sums_and_window)
    count = sum(part[2] for part in parts)
    digest = format_digest(add_sums([part[0] for part in parts]), rows=count)
    names = [(column.name, column.kind) for column in rows.columns]
    identity = stable_id(digest, names, classes, as_of and as_of.isoformat(), feature_code(workflow))
    spans = [part[1] for part in parts if part[1]]
    window = (min(s[0] for s in spans), max(s[1] for s in spans)) if spans else None
    return Snapshot(
        id=identity,
        workflow=workflow.name,
        uri=Store(workflow.stores.root).uri(snapshot_path(workflow.name, identity)),
        rows=count,
        columns=rows.columns,
        task=workflow.task,
        classes=classes,
        label=workflow.spine.label,
        has_time=bool(spans),
        window=window,
        as_of=as_of,
        digest=digest,
        profile=(),
        sources=rows.sources,
    )


def _write(store: Store, snapshot: Snapshot, final: Blocks) -> None:
    path = snapshot_path(snapshot.workflow, snapshot.id)
    _clear(store, path)
    if final.here:
        sink = io.BytesIO()
        pq.write_table(sort_rows(final.table()), sink, compression="zstd")
        store.write(f"{path}/part-000000.parquet", sink.getvalue())
        return
    filesystem, base = store.filesystem()
    with data_context():
        names = ["__time", "__key"] if snapshot.has_time else ["__key"]
        dataset: ray.data.Dataset = final.dataset().sort(names)
        dataset.write_parquet(f"{base}/{path}", filesystem=filesystem, filename_provider=PartNames())


def _clear(store: Store, path: str) -> None:
    """Remove what a build that was broken off left behind."""
    filesystem, base = store.filesystem()
    for name in store.list(path):
        filesystem.delete_file(f"{base}/{path}/{name}")


def _sample(blocks: Blocks, rows: int) -> pa.Table:
    share: Callable[..., Any] = _share_of_rows
    return blocks.transform(share, SAMPLE_ROWS / max(rows, 1)).table() if not blocks.here else blocks.table()


def _share_of_rows(table: pa.Table, share: float) -> pa.Table:
    if share >= 1:
        return table
    place = (_keys(table).view(np.uint64) >> np.uint64(11)) / 2.0**53
    return table.filter(pa.array(place < share))


def _keys(table: pa.Table) -> np.ndarray:
    return np.asarray(table.column("__key").to_numpy(), dtype=np.int64)


def _final(table: pa.Table, columns: tuple[Column, ...]) -> pa.Table:
    reserved = [name for name in RESERVED if name in table.column_names]
    return table.select([*(column.name for column in columns), *reserved])


def _sums_and_window(table: pa.Table) -> tuple[tuple[int, ...], tuple[datetime, datetime] | None, int]:
    sums = content_sums(table)
    if "__time" not in table.column_names or table.num_rows == 0:
        return sums, None, table.num_rows
    times = time_us(table.column("__time"), missing=0)
    span = (_instant(int(times.min())), _instant(int(times.max())))
    return sums, span, table.num_rows


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _instant(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)
