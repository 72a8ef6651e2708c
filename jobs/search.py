"""Builds a snapshot and searches it: ``python -m jobs.search WORKFLOW``."""

import click

from raywf.core.loader import load_workflow
from raywf.loop.cluster import connect
from raywf.loop.jobs import workflow_file
from raywf.loop.pipeline import Listener, search_only


@click.command()
@click.argument("workflow")
def main(workflow: str) -> None:
    """Search and print each trial as it ends, with the node that it ran on."""
    settings = load_workflow(workflow_file(workflow), environ={})
    connect(settings)
    found = search_only(
        settings, listener=Listener(stage=print, trial=lambda t: print(t.id, t.status, t.score))
    )
    for trial_id, node in found.nodes.items():
        print(f"trial {trial_id} ran on node {node}")


if __name__ == "__main__":
    main()
