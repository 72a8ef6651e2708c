"""Builds a snapshot and searches it: ``python -m jobs.search WORKFLOW [--as-of TIME]``."""

from datetime import datetime

import click

from raywf.core.clock import parse_time
from raywf.core.loader import load_workflow
from raywf.loop.cluster import connect
from raywf.loop.job_log import keep_output
from raywf.loop.jobs import workflow_file
from raywf.loop.pipeline import Listener, search_only


@click.command()
@click.argument("workflow")
@click.option("--as-of", type=parse_time, help="ISO 8601 instant to look from; default: now.")
def main(workflow: str, as_of: datetime | None) -> None:
    """Search and print each trial as it ends, with the node that it ran on."""
    settings = load_workflow(workflow_file(workflow), environ={})
    keep_output(settings)
    connect(settings)
    told = Listener(stage=print, trial=lambda t: print(t.id, t.status, t.score))
    found = search_only(settings, as_of=as_of, listener=told)
    for trial_id, node in found.nodes.items():
        print(f"trial {trial_id} ran on node {node}")


if __name__ == "__main__":
    main()
