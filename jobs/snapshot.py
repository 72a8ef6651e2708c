"""Builds a snapshot: ``python -m jobs.snapshot WORKFLOW [--as-of TIME]``."""

import click

from raywf.core.clock import parse_time
from raywf.core.loader import load_workflow
from raywf.loop.cluster import connect
from raywf.loop.job_log import keep_output
from raywf.loop.jobs import workflow_file
from raywf.snapshots.build import build_snapshot


@click.command()
@click.argument("workflow")
@click.option("--as-of", type=parse_time, help="ISO 8601 instant; default: now.")
def main(workflow: str, as_of: object) -> None:
    """Build a snapshot and print its id."""
    settings = load_workflow(workflow_file(workflow), environ={})
    keep_output(settings)
    connect(settings)
    snapshot = build_snapshot(settings, as_of=as_of)  # type: ignore[arg-type]
    print(f"snapshot {snapshot.id}: {snapshot.rows} rows at {snapshot.uri}")


if __name__ == "__main__":
    main()
