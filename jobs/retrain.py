"""Carries a retraining out: ``python -m jobs.retrain WORKFLOW --decision ID``."""

import sys

import click

from raywf.core.journal import Journal
from raywf.core.loader import load_workflow
from raywf.loop.cluster import connect
from raywf.loop.job_log import keep_output
from raywf.loop.jobs import workflow_file
from raywf.loop.pipeline import Listener, retrain


@click.command()
@click.argument("workflow")
@click.option("--decision", "decision_id", required=True, help="Id of a decision in the journal.")
def main(workflow: str, decision_id: str) -> None:
    """Snapshot, search, gate, register and, if the gate accepts, swap."""
    settings = load_workflow(workflow_file(workflow), environ={})
    keep_output(settings)
    decision = Journal(settings.stores.root, settings.name).decision(decision_id)
    if decision is None:
        sys.exit(f"no decision {decision_id!r} in the journal below {settings.stores.root}")
    connect(settings)
    found = retrain(settings, decision, listener=Listener(stage=lambda text: print(text, flush=True)))
    for trial_id, node in found.nodes.items():
        print(f"trial {trial_id} ran on node {node}")


if __name__ == "__main__":
    main()
