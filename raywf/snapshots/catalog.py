"""The snapshots of a store: list, load, read. A folder without a manifest is no snapshot."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import SourceError, did_you_mean
from raywf.core.records import Snapshot
from raywf.core.store import Store

_MANIFEST = "manifest.json"
_NEVER = datetime.min.replace(tzinfo=UTC)


def snapshot_path(workflow_name: str, snapshot_id: str) -> str:
    """Return a snapshot's folder, relative to the store's root."""
    return f"snapshots/{workflow_name}/{snapshot_id}"


def list_snapshots(store: Store, workflow_name: str) -> tuple[Snapshot, ...]:
    """Return the workflow's snapshots, the newest `as_of` last; those without one come first."""
    names = store.list(f"snapshots/{workflow_name}")
    found = [s for s in (find_snapshot(store, workflow_name, name) for name in names) if s is not None]
    return tuple(sorted(found, key=lambda s: (s.as_of or _NEVER, s.id)))


def load_snapshot(store: Store, workflow_name: str, snapshot_id: str) -> Snapshot:
    """Return the snapshot of that id.

    Raises:
        SourceError: with the known ids, if there is none.

    """
    snapshot = find_snapshot(store, workflow_name, snapshot_id)
    if snapshot is None:
        known = [s.id for s in list_snapshots(store, workflow_name)]
        near = did_you_mean(snapshot_id, known) if known else "; none was built yet"
        raise SourceError(f"workflow {workflow_name!r} has no snapshot {snapshot_id!r}{near}")
    return snapshot


def find_snapshot(store: Store, workflow_name: str, snapshot_id: str) -> Snapshot | None:
    """Return the snapshot of that id, or None.

    Raises:
        SourceError: if its manifest cannot be understood.

    """
    path = f"{snapshot_path(workflow_name, snapshot_id)}/{_MANIFEST}"
    try:
        data = store.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return decode(Snapshot, json.loads(data))
    except (DecodeError, ValueError) as err:
        raise SourceError(f"{store.uri(path)} is no manifest of this version: {err}") from err


def commit_snapshot(store: Store, snapshot: Snapshot) -> None:
    """Write the manifest: from now on the snapshot exists. Its rows must be written before."""
    data = json.dumps(encode(snapshot), indent=1).encode()
    store.write(f"{snapshot_path(snapshot.workflow, snapshot.id)}/{_MANIFEST}", data)


def read_snapshot(snapshot: Snapshot) -> pa.Table:
    """Return all rows, sorted by ``__time`` (where there is one), then ``__key``.

    Columns: the features, ``__label`` (float64), ``__time`` (``timestamp[us, UTC]``) if `has_time`,
    ``__key`` (int64).

    Raises:
        SourceError: if files are gone or do not hold the manifest's rows.

    """
    store = Store(snapshot.uri)
    filesystem, base = store.filesystem()
    parts = [name for name in store.list("") if name.endswith(".parquet")]
    try:
        tables = [pq.read_table(f"{base}/{name}", filesystem=filesystem, partitioning=None) for name in parts]
    except (OSError, pa.ArrowInvalid) as err:
        raise SourceError(f"cannot read snapshot {snapshot.id}: {str(err).splitlines()[0]}") from err
    rows = sum(table.num_rows for table in tables)
    if rows != snapshot.rows:
        raise SourceError(f"snapshot {snapshot.id} has {rows} rows at {snapshot.uri}, not {snapshot.rows}")
    return sort_rows(pa.concat_tables(tables).combine_chunks())


def sort_rows(table: pa.Table) -> pa.Table:
    """Sort by ``__time`` where there is one, then by ``__key``."""
    names = [name for name in ("__time", "__key") if name in table.column_names]
    return table.sort_by([(name, "ascending") for name in names])
