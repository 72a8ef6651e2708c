"""`raywf run` and `raywf search`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import click

from raywf.cli.leaderboard import leaderboard, left_over
from raywf.cli.options import show, workflow_options
from raywf.cli.progress import progress
from raywf.core.clock import format_time, parse_time
from raywf.core.ids import stable_id
from raywf.core.records import Decision, Effort
from raywf.core.settings import Workflow
from raywf.cost.rate import resolve_rate


@click.command()
@workflow_options
@click.option("--as-of", type=parse_time, help="ISO 8601 instant to look from; default: now.")
@click.option(
    "--effort",
    type=click.Choice(get_args(Effort)),
    default="full",
    show_default=True,
    help="Fit the champion's members again, weigh them anew too, search shortly from there, or in full.",
)
@click.option(
    "--resume", is_flag=True, help="Take the interrupted run up again, with its instant and effort."
)
def run(workflow: Workflow, as_of: datetime | None, effort: Effort, *, resume: bool, as_json: bool) -> None:
    """Snapshot, search, gate, register and, if the gate accepts, promote.

    Interrupted, it goes on with --resume where it stopped: no finished fold is fitted again.
    """
    from raywf.loop.cluster import connect
    from raywf.loop.pipeline import retrain
    from raywf.loop.unfinished import interrupted_run
    from raywf.search.budget import warm_seconds

    _refuse_both(as_of, resume=resume)
    decision = interrupted_run(workflow) if resume else _by_hand(workflow, as_of, effort)
    resolve_rate(workflow.cost)
    allowed_s = workflow.search.budget_s
    if decision.effort == "warm":
        allowed_s = warm_seconds(allowed_s, workflow.search.warm_share)
    with progress(allowed_s) as listener:
        connect(workflow)
        done = retrain(workflow, decision, listener=listener)
    lines = [
        *leaderboard(done.sweep),
        *left_over(done.sweep, workflow.search.trials),
        "",
        *(f"warning: {text}" for text in done.snapshot.warnings),
        f"gate: {done.verdict.outcome}: {done.verdict.reason}",
        f"version {done.version.version} of {workflow.name}: {done.status}",
        "next: raywf serve up" if done.status == "promoted" else "the champion stays",
    ]
    result = {"status": done.status, "version": done.version, "verdict": done.verdict, "sweep": done.sweep}
    show(result, as_json=as_json, lines=lines)


def _by_hand(workflow: Workflow, as_of: datetime | None, effort: Effort) -> Decision:
    from raywf.core.journal import BY_HAND
    from raywf.loop.unfinished import RUN

    now = datetime.now(UTC)
    window = format_time(now)
    return Decision(
        id=stable_id(workflow.name, "retrain", BY_HAND, window),
        workflow=workflow.name,
        kind="retrain",
        cause=BY_HAND,
        window=window,
        reasons=RUN,
        time=as_of or now,
        effort=effort,
    )


def _refuse_both(as_of: datetime | None, *, resume: bool) -> None:
    if as_of is not None and resume:
        raise click.UsageError(
            "--resume has the instant that the interrupted one looked from: leave --as-of out"
        )


@click.command()
@workflow_options
@click.option("--as-of", type=parse_time, help="ISO 8601 instant to look from; default: now.")
@click.option("--resume", is_flag=True, help="Take the interrupted search up again, from the instant it had.")
def search(workflow: Workflow, as_of: datetime | None, *, resume: bool, as_json: bool) -> None:
    """Search for the best model and show the leaderboard; nothing is registered.

    Interrupted, it goes on with --resume where it stopped: no finished fold is fitted again.
    """
    from raywf.loop.cluster import connect
    from raywf.loop.pipeline import search_only
    from raywf.loop.unfinished import interrupted_as_of

    _refuse_both(as_of, resume=resume)
    if resume:
        as_of = interrupted_as_of(workflow)
    resolve_rate(workflow.cost)
    with progress(workflow.search.budget_s) as listener:
        connect(workflow)
        found = search_only(workflow, as_of=as_of, listener=listener, resumes=resume)
    left = left_over(found.sweep, workflow.search.trials)
    lines = [*leaderboard(found.sweep), *left, f"bundle: {found.final.uri}"]
    show(found.sweep, as_json=as_json, lines=lines)
