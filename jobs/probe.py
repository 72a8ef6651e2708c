"""Looks whether a retraining would help: ``python -m jobs.probe WORKFLOW --decision ID``."""

import sys

import click

from raywf.core.journal import Journal
from raywf.core.loader import load_workflow
from raywf.loop.cluster import connect
from raywf.loop.job_log import keep_output
from raywf.loop.jobs import workflow_file
from raywf.loop.probe import look


@click.command()
@click.argument("workflow")
@click.option("--decision", "decision_id", required=True, help="Id of a decision in the journal.")
def main(workflow: str, decision_id: str) -> None:
    """Fit a quick model of newer rows, score it beside the champion and write what was found."""
    settings = load_workflow(workflow_file(workflow), environ={})
    keep_output(settings)
    decision = Journal(settings.stores.root, settings.name).decision(decision_id)
    if decision is None:
        sys.exit(f"no decision {decision_id!r} in the journal below {settings.stores.root}")
    connect(settings)
    found = look(settings, decision)
    print(f"{found.rows} rows: the champion's loss {found.champion:.4f}, a quick model's {found.quick:.4f}")


if __name__ == "__main__":
    main()
