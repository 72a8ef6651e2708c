"""`raywf job`: submit, status, logs, stop, resume."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from raywf.cli.options import show, table, workflow_options
from raywf.cli.score import score_arguments
from raywf.core.clock import format_time
from raywf.core.ids import stable_id
from raywf.core.records import Decision
from raywf.core.settings import Workflow

if TYPE_CHECKING:
    from raywf.loop.jobs import Jobs

_KINDS = click.Choice(["retrain", "score", "search", "snapshot"])


@click.group()
def job() -> None:
    """Submit jobs to the cluster, read their logs, stop them, take them up again."""


@job.command(context_settings={"ignore_unknown_options": True})
@workflow_options
@click.argument("kind", type=_KINDS, default="retrain")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF SCORE]")
@click.option("--wait", is_flag=True, help="Print the job's output and wait for its end.")
def submit(workflow: Workflow, kind: str, options: tuple[str, ...], *, wait: bool, as_json: bool) -> None:
    """Submit a job to `cluster.address` or to the cluster of `raywf serve up`.

    A job `score` takes the options of `raywf score`; the nodes must see its folders.
    """
    now = datetime.now(UTC)
    arguments = _arguments(workflow, kind, options, now)
    from raywf.core.journal import BY_HAND, Journal
    from raywf.loop.jobs import Jobs

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
    _attend(jobs, job_id, wait=wait, as_json=as_json)


@job.command()
@workflow_options
@click.argument("job_id")
@click.option("--wait", is_flag=True, help="Print the job's output and wait for its end.")
def resume(workflow: Workflow, job_id: str, *, wait: bool, as_json: bool) -> None:
    """Submit a job again that was stopped or lost: it does what is left, with the settings that it had."""
    from raywf.loop.jobs import Jobs

    jobs = Jobs(workflow)
    _attend(jobs, jobs.resume(job_id), wait=wait, as_json=as_json)


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
    """Print what a job has printed, though its node or the cluster be gone."""
    from raywf.loop.jobs import Jobs

    text = Jobs(workflow).logs(job_id)
    show({"id": job_id, "logs": text}, as_json=as_json, lines=[text.rstrip("\n")])


@job.command()
@workflow_options
@click.argument("job_id")
def stop(workflow: Workflow, job_id: str, *, as_json: bool) -> None:
    """Ask a job to stop; the folds that it finished are kept, and `raywf job resume` goes on from there."""
    from raywf.loop.jobs import Jobs

    was_running = Jobs(workflow).stop(job_id)
    lines = [f"{job_id}: {'stopping' if was_running else 'was not running'}"]
    lines += [f"next: raywf job resume {job_id}"] if was_running else []
    show({"id": job_id, "was_running": was_running}, as_json=as_json, lines=lines)


def _attend(jobs: Jobs, job_id: str, *, wait: bool, as_json: bool) -> None:
    """Show how a job that was just submitted is doing, or what became of it; exit 1 if it came to no good."""
    if wait:
        jobs.follow(job_id, lambda text: click.echo(text, nl=False, err=True))
    status = jobs.status(job_id)
    lines = [f"{job_id}: {status}", f"next: raywf job logs {job_id}"]
    show({"id": job_id, "status": status}, as_json=as_json, lines=lines)
    if wait and status != "SUCCEEDED":
        raise click.exceptions.Exit(1)


def _arguments(workflow: Workflow, kind: str, options: tuple[str, ...], now: datetime) -> tuple[str, ...]:
    """Return what the job is told besides the workflow; wrong options are refused here.

    The instant that it looks from is one of them, so that it looks from there too when it is taken up again.
    """
    if kind == "score":
        return score_arguments(options)
    if options:
        raise click.UsageError(f"a job {kind} takes no further arguments, got {options[0]!r}")
    timed = workflow.spine.event_time is not None and kind in {"search", "snapshot"}
    return ("--as-of", format_time(now)) if timed else ()
