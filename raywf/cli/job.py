"""`raywf job`: submit, status, logs, stop."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from raywf.cli.options import show, table, workflow_options
from raywf.cli.score import score_arguments
from raywf.core.ids import stable_id
from raywf.core.records import Decision
from raywf.core.settings import Workflow

_KINDS = click.Choice(["retrain", "score", "search", "snapshot"])


@click.group()
def job() -> None:
    """Submit jobs to the cluster, read their logs, stop them."""


@job.command(context_settings={"ignore_unknown_options": True})
@workflow_options
@click.argument("kind", type=_KINDS, default="retrain")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF SCORE]")
@click.option("--wait", is_flag=True, help="Print the job's output and wait for its end.")
def submit(workflow: Workflow, kind: str, options: tuple[str, ...], *, wait: bool, as_json: bool) -> None:
    """Submit a job to `cluster.address` or to the cluster of `raywf serve up`.

    A job `score` takes the options of `raywf score`; the nodes must see its folders.
    """
    arguments = _arguments(kind, options)
    from raywf.core.journal import BY_HAND, Journal
    from raywf.loop.jobs import Jobs

    now = datetime.now(UTC)
    job_id = f"{workflow.name}-{kind}-{stable_id(workflow.name, kind, now.isoformat())}"
    if kind == "retrain":
        decision = Decision(
            id=job_id,
            workflow=workflow.name,
            kind="retrain",
            cause=BY_HAND,
            window=now.isoformat(),
            reasons=("raywf job submit",),
            time=now,
        )
        Journal(workflow.stores.root, workflow.name).decide(decision)
        arguments = ("--decision", job_id)
    jobs = Jobs(workflow)
    jobs.submit(kind, job_id, *arguments)
    if wait:
        jobs.follow(job_id, lambda text: click.echo(text, nl=False, err=True))
    status = jobs.status(job_id)
    lines = [f"{job_id}: {status}", f"next: raywf job logs {job_id}"]
    show({"id": job_id, "status": status}, as_json=as_json, lines=lines)
    if wait and status != "SUCCEEDED":
        raise click.exceptions.Exit(1)


@job.command()
@workflow_options
@click.argument("job_id", required=False)
def status(workflow: Workflow, job_id: str | None, *, as_json: bool) -> None:
    """Show one job's status, or those of all jobs of the workflow."""
    from raywf.loop.jobs import Jobs

    jobs = Jobs(workflow)
    found = [(job_id, jobs.status(job_id))] if job_id else list(jobs.list())
    value = [{"id": i, "status": s} for i, s in found]
    show(value, as_json=as_json, lines=table(["job", "status"], found))


@job.command()
@workflow_options
@click.argument("job_id")
def logs(workflow: Workflow, job_id: str, *, as_json: bool) -> None:
    """Print what a job has printed."""
    from raywf.loop.jobs import Jobs

    text = Jobs(workflow).logs(job_id)
    show({"id": job_id, "logs": text}, as_json=as_json, lines=[text.rstrip("\n")])


@job.command()
@workflow_options
@click.argument("job_id")
def stop(workflow: Workflow, job_id: str, *, as_json: bool) -> None:
    """Ask a job to stop; the trials that it finished are kept."""
    from raywf.loop.jobs import Jobs

    was_running = Jobs(workflow).stop(job_id)
    lines = [f"{job_id}: {'stopping' if was_running else 'was not running'}"]
    show({"id": job_id, "was_running": was_running}, as_json=as_json, lines=lines)


def _arguments(kind: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the job is told besides the workflow; wrong options are refused here."""
    if kind == "score":
        return score_arguments(options)
    if options:
        raise click.UsageError(f"a job {kind} takes no further arguments, got {options[0]!r}")
    return ()
