"""Reads the spine and its views and joins them: a Ray Dataset of point-in-time rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import ray
import ray.data

from raywf.core.records import Column, Source
from raywf.core.settings import Workflow
from raywf.snapshots.failures import task_errors
from raywf.snapshots.join import BroadcastJoins, ViewJoin, check_unique_keys, join_partitioned
from raywf.snapshots.plan import Scan, TablePlan, decide_kinds, plan_tables, scan_blocks
from raywf.snapshots.prepare import ORDER, add_row_key, prepare_block, schema_of
from raywf.snapshots.sources import TASK_CPUS, Table, data_context, open_table, read_blocks

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes: up to which a view is sent to every block, and a result is brought to one process."""

    broadcast_bytes: int = 256_000_000
    gather_bytes: int = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rows:
    """The joined rows: ``__label``, ``__key``, the times, ``__key:<key>`` texts and the features."""

    dataset: ray.data.Dataset
    columns: tuple[Column, ...]
    sources: tuple[Source, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    plan: TablePlan
    refs: list[ray.ObjectRef] = field(repr=False)
    scan: Scan
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrepareSpine:
    """A Ray Data batch function: a raw block of the spine to rows with ``__key``."""

    plan: TablePlan
    keys: tuple[str, ...]
    after_us: int | None
    until_us: int | None

    def __call__(self, block: pa.Table) -> pa.Table:
        """Convert, cut to the window and hash."""
        rows = prepare_block(block, self.plan, after_us=self.after_us, until_us=self.until_us)
        return add_row_key(rows, self.keys)


def assemble(
    workflow: Workflow, *, until: datetime | None = None, after: datetime | None = None, limits: Limits
) -> Rows:
    """Join every spine row with ``after < event time <= until`` to its features; nothing is sorted.

    Raises:
        SourceError: if a table cannot be read, is empty or lacks a column.
        SettingsError: if columns and settings do not go together.
        ValidationError: if a view without times repeats a key.

    """
    tables = {"spine": open_table(workflow.spine.path, name="spine")}
    views = workflow.features.views
    tables |= {name: open_table(view.path, name=name) for name, view in views.items()}
    plans = plan_tables(workflow, tables)
    parts = {name: _read(tables[name], plan, workflow) for name, plan in plans.items()}
    spine = PrepareSpine(parts["spine"].plan, workflow.spine.keys, microseconds(after), microseconds(until))
    with data_context(), task_errors("spine"):
        dataset = ray.data.from_arrow_refs(parts["spine"].refs)
        dataset = _map(dataset, spine)
        schema = schema_of(spine.plan).append(pa.field("__key", pa.int64()))
        joins = {
            n: ViewJoin(parts[n].plan, view.max_age) for n, view in views.items() if parts[n].plan.features
        }
        small = [name for name in joins if parts[name].scan.bytes < limits.broadcast_bytes]
        if small:
            held = tuple(_hold(parts[name]) for name in small)
            dataset = _map(dataset, BroadcastJoins(tuple(joins[name] for name in small), held))
        for name in [*small, *(name for name in joins if name not in small)]:
            added = schema_of(parts[name].plan)
            if name not in small:
                view = ray.data.from_arrow_refs(_prepared(parts[name]))
                schemas = (schema, added.append(pa.field(ORDER, pa.int64())))
                dataset = join_partitioned(dataset.materialize(), view, joins[name], schemas=schemas)
            schema = pa.schema([*schema, *(added.field(f) for f in joins[name].features)])
        dataset = dataset.materialize()
    columns = tuple(feature.column for part in parts.values() for feature in part.plan.features)
    warnings = tuple(text for part in parts.values() for text in part.warnings)
    return Rows(dataset, columns, tuple(t.source for t in tables.values()), warnings)


def _read(table: Table, plan: TablePlan, workflow: Workflow) -> _Part:
    with task_errors(table.source.name):
        refs = read_blocks(table, plan.columns)
        scan = scan_blocks(refs, plan)
    decided, warnings = decide_kinds(plan, scan, workflow=workflow)
    return _Part(decided, refs, scan, warnings)


def _prepared(part: _Part) -> list[ray.ObjectRef]:
    task = ray.remote(_prepare_view).options(num_cpus=TASK_CPUS)
    starts = [sum(part.scan.rows[:i]) for i in range(len(part.refs))]
    return [task.remote(ref, part.plan, start) for ref, start in zip(part.refs, starts, strict=True)]


def _hold(part: _Part) -> ray.ObjectRef:
    """Put a view whole into the object store."""
    view = pa.concat_tables(ray.get(_prepared(part)))
    check_unique_keys(view, part.plan)
    return ray.put(view)


def _prepare_view(block: pa.Table, plan: TablePlan, start: int) -> pa.Table:
    order = pa.array(np.arange(start, start + block.num_rows, dtype=np.int64))
    return prepare_block(block.append_column(ORDER, order), plan)


def _map(dataset: ray.data.Dataset, function: PrepareSpine | BroadcastJoins) -> ray.data.Dataset:
    return dataset.map_batches(function.__call__, batch_size=None, batch_format="pyarrow", num_cpus=TASK_CPUS)


def microseconds(value: datetime | None) -> int | None:
    """Return an instant as microseconds since the epoch."""
    return None if value is None else (value - EPOCH) // timedelta(microseconds=1)
