"""`raywf models`: list, show, promote, rollback."""

from __future__ import annotations

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.audit import Audit
from raywf.core.clock import format_time
from raywf.core.codec import encode
from raywf.core.settings import Workflow


@click.group()
def models() -> None:
    """List, show, promote and roll back model versions."""


@models.command(name="list")
@workflow_options
def list_(workflow: Workflow, *, as_json: bool) -> None:
    """List the versions, oldest first."""
    from raywf.registry.registry import open_registry

    found = open_registry(workflow).versions()
    rows = [
        (
            v.version,
            v.status,
            ", ".join(v.aliases),
            v.metrics.get(workflow.metric),
            v.snapshot_id,
            format_time(v.created),
        )
        for v in found
    ]
    headers = ["version", "status", "aliases", workflow.metric, "snapshot", "created"]
    show(found, as_json=as_json, lines=table(headers, rows))


@models.command(name="show")
@workflow_options
@click.argument("version")
def show_(workflow: Workflow, version: str, *, as_json: bool) -> None:
    """Show one version with its lineage."""
    from raywf.registry.registry import open_registry

    found = open_registry(workflow).version(version)
    show(found, as_json=as_json, lines=[f"{key}: {value}" for key, value in encode(found).items()])


@models.command()
@workflow_options
@click.argument("version")
def promote(workflow: Workflow, version: str, *, as_json: bool) -> None:
    """Make VERSION the champion, in live traffic too."""
    from raywf.loop.cluster import connect
    from raywf.loop.local import cluster_address, find_local
    from raywf.loop.promote import promote_by_hand
    from raywf.registry.registry import open_registry

    registry = open_registry(workflow)
    target = registry.version(version)
    if find_local(workflow) is not None or cluster_address(workflow):
        connect(workflow)
    promote_by_hand(workflow, registry, target)
    Audit(workflow.stores.root, workflow.name).note_command(f"models promote {version}")
    show(
        registry.version(version), as_json=as_json, lines=[f"champion of {workflow.name}: version {version}"]
    )


@models.command()
@workflow_options
def rollback(workflow: Workflow, *, as_json: bool) -> None:
    """Make the former champion the champion again."""
    from raywf.loop.cluster import connect
    from raywf.loop.local import cluster_address, find_local
    from raywf.loop.promote import rollback as roll_back
    from raywf.registry.registry import open_registry

    if find_local(workflow) is not None or cluster_address(workflow):
        connect(workflow)
    champion = roll_back(workflow, open_registry(workflow))
    Audit(workflow.stores.root, workflow.name).note_command(f"models rollback to {champion.version}")
    show(champion, as_json=as_json, lines=[f"champion of {workflow.name}: version {champion.version}"])
