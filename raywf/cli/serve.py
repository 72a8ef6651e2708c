"""`raywf serve`: up, status, down."""

from __future__ import annotations

from contextlib import nullcontext

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.settings import Workflow


@click.group()
def serve() -> None:
    """Bring the endpoint and its monitor up and down."""


@serve.command()
@workflow_options
def up(workflow: Workflow, *, as_json: bool) -> None:
    """Serve the champion, watch it and retrain it, in the background until `raywf serve down`."""
    from raywf.loop.local import cluster_address, starting_local
    from raywf.registry.registry import open_registry

    open_registry(workflow).resolve("champion")
    click.echo(f"starting {workflow.name} ...", err=True)
    with starting_local(workflow) if cluster_address(workflow) is None else nullcontext():
        from raywf.loop.system import up as bring_up  # Ray Serve reads its environment when it is imported

    url = bring_up(workflow)
    lines = [
        f"{workflow.name} serves at {url}",
        f"try: curl {url}/v1/model",
        "stop: raywf serve down",
    ]
    show({"url": url}, as_json=as_json, lines=lines)


@serve.command()
@workflow_options
def status(workflow: Workflow, *, as_json: bool) -> None:
    """Show whether it is up, each replica's version and what the monitor has seen."""
    from raywf.loop.system import state

    found = state(workflow)
    replicas = [(r["replica"], r["version"], r["reason"]) for r in found["replicas"]]
    lines = [f"{workflow.name}: {found['status']} {found['url'] or ''}".rstrip()]
    if replicas:
        lines += table(["replica", "version", "note"], replicas)
    if "monitor" in found:
        lines.append("monitor: " + ", ".join(f"{k} {v}" for k, v in dict(found["monitor"]).items()))
    if "controller" in found:
        lines += [f"controller {key}: {text}" for key, text in dict(found["controller"]).items() if text]
    show(found, as_json=as_json, lines=lines)


@serve.command()
@workflow_options
def down(workflow: Workflow, *, as_json: bool) -> None:
    """Stop the endpoint, the monitor and, if raywf started it and nothing else is up there, the cluster."""
    from raywf.loop.local import cluster_address, find_local, shares_local, stop_local

    alone = find_local(workflow) is None or not shares_local(workflow)
    if cluster_address(workflow) is None and alone:
        was_up = stop_local(workflow)
    else:
        from raywf.loop.system import down as take_down

        was_up = take_down(workflow)
    show(
        {"was_up": was_up}, as_json=as_json, lines=[f"{workflow.name}: {'down' if was_up else 'was not up'}"]
    )
