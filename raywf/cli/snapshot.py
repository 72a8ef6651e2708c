"""`raywf snapshot`: build, list, show."""

from __future__ import annotations

from datetime import datetime

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.clock import format_time, parse_time
from raywf.core.records import Snapshot
from raywf.core.settings import Workflow
from raywf.core.store import Store


@click.group()
def snapshot() -> None:
    """Build, list and show feature snapshots."""


@snapshot.command()
@workflow_options
@click.option("--as-of", type=parse_time, help="ISO 8601 instant to look from; default: now.")
def build(workflow: Workflow, as_of: datetime | None, *, as_json: bool) -> None:
    """Join the tables as they were known at an instant; the same again is a no-op."""
    from raywf.loop.cluster import connect
    from raywf.snapshots.build import build_snapshot

    connect(workflow)
    made = build_snapshot(workflow, as_of=as_of)
    show(made, as_json=as_json, lines=_describe(made))


@snapshot.command(name="list")
@workflow_options
def list_(workflow: Workflow, *, as_json: bool) -> None:
    """List the workflow's snapshots."""
    from raywf.snapshots.catalog import list_snapshots

    found = list_snapshots(Store(workflow.stores.root), workflow.name)
    rows = [(s.id, s.rows, len(s.columns), format_time(s.as_of) if s.as_of else "-") for s in found]
    show(found, as_json=as_json, lines=table(["snapshot", "rows", "features", "as of"], rows))


@snapshot.command(name="show")
@workflow_options
@click.argument("snapshot_id")
def show_(workflow: Workflow, snapshot_id: str, *, as_json: bool) -> None:
    """Show one snapshot: columns, sources, warnings."""
    from raywf.snapshots.catalog import load_snapshot

    found = load_snapshot(Store(workflow.stores.root), workflow.name, snapshot_id)
    show(found, as_json=as_json, lines=_describe(found))


def _describe(found: Snapshot) -> list[str]:
    missing = {p.name: p.missing for p in found.profile}
    columns = [(c.name, c.kind, f"{missing.get(c.name, 0) / max(1, found.rows):.1%}") for c in found.columns]
    window = " to ".join(format_time(t) for t in found.window) if found.window else "no times"
    return [
        f"snapshot {found.id}: {found.rows:,} rows, {window}",
        f"as of {format_time(found.as_of) if found.as_of else 'now'}, at {found.uri}",
        *(
            f"source {s.name}: {s.files} file(s), {s.bytes:,} bytes, version {s.version}"
            for s in found.sources
        ),
        *(f"warning: {text}" for text in found.warnings),
        "",
        *table(["column", "kind", "missing"], columns),
    ]
