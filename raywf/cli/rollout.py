"""`raywf rollout`: start, status, advance, pause, resume, abort."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.audit import Audit
from raywf.core.clock import format_time
from raywf.core.errors import ServingError
from raywf.core.rollout import Rollouts, RolloutStep
from raywf.core.settings import Workflow

if TYPE_CHECKING:
    from raywf.registry.registry import Registry


@click.group()
def rollout() -> None:
    """Bring a version to live traffic step by step: as a shadow, a canary, or one of two."""


@rollout.command()
@workflow_options
@click.argument("versions", nargs=-1, required=True)
def start(workflow: Workflow, versions: tuple[str, ...], *, as_json: bool) -> None:
    """Start a rollout of VERSIONS by the file's `rollout` settings; of several only as shadows."""
    from raywf.loop.rollout import start_by_hand
    from raywf.loop.system import event_now

    if workflow.rollout.mode == "direct":
        raise ServingError("rollout.mode is direct: set shadow, canary or ab, or use raywf models promote")
    if len(versions) > 1 and workflow.rollout.mode != "shadow":
        raise ServingError(f"mode {workflow.rollout.mode} takes one version, got {', '.join(versions)}")
    registry = _connected(workflow)
    found = [registry.version(name) for name in versions]
    step = start_by_hand(workflow, registry, found, now=event_now(workflow))
    _note(workflow, f"rollout start {', '.join(versions)}", step)
    _show(step, as_json=as_json)


@rollout.command()
@workflow_options
def status(workflow: Workflow, *, as_json: bool) -> None:
    """Show the newest rollout's steps, and what the present one waits for."""
    rollouts = Rollouts(workflow.stores.root, workflow.name)
    latest = rollouts.latest()
    if latest is None:
        show(None, as_json=as_json, lines=[f"{workflow.name} never had a rollout"])
        return
    steps = rollouts.steps(latest.rollout)
    lines = [_title(latest), *table(["step", "time", "stage", "share", "reason"], [_row(s) for s in steps])]
    from raywf.loop.system import last_move

    move = None if latest.is_over else last_move(workflow)
    if move is not None:
        lines += [f"waits: {reason}" for reason in move.reasons]
        lines += [f"  {key}: {figure}" for key, figure in move.figures.items() if figure is not None]
    show({"steps": steps, "now": move}, as_json=as_json, lines=lines)


@rollout.command()
@workflow_options
@click.argument("version", required=False)
def advance(workflow: Workflow, version: str | None, *, as_json: bool) -> None:
    """Take the next step now; after the last one VERSION, or the only challenger, becomes champion."""
    from raywf.loop.rollout import advance_rollout
    from raywf.loop.system import event_now

    registry = _connected(workflow)
    step = _under_way(workflow)
    over = advance_rollout(workflow, registry, step, now=event_now(workflow), version=version)
    _done(workflow, "rollout advance", over, as_json=as_json)


@rollout.command()
@workflow_options
def pause(workflow: Workflow, *, as_json: bool) -> None:
    """Hold the present step as it is: nothing ends it but advance, resume or abort."""
    _pause(workflow, "rollout pause", paused=True, as_json=as_json)


@rollout.command()
@workflow_options
def resume(workflow: Workflow, *, as_json: bool) -> None:
    """Let a paused rollout go on by itself."""
    _pause(workflow, "rollout resume", paused=False, as_json=as_json)


@rollout.command()
@workflow_options
@click.option("--reason", default="aborted by hand", show_default=True, help="Kept with the version.")
def abort(workflow: Workflow, reason: str, *, as_json: bool) -> None:
    """Give all traffic back to the champion."""
    from raywf.loop.rollout import end_rollout
    from raywf.loop.watch import refuse_abort

    registry = _connected(workflow)
    step = _under_way(workflow)
    refuse_abort(step)
    over = end_rollout(workflow, registry, step, stage="aborted", reasons=(reason,))
    _done(workflow, "rollout abort", over, as_json=as_json)


def _pause(workflow: Workflow, what: str, *, paused: bool, as_json: bool) -> None:
    from raywf.loop.system import event_now

    _connected(workflow)
    reason = "paused by hand" if paused else "resumed by hand"
    rollouts = Rollouts(workflow.stores.root, workflow.name)
    over = rollouts.pause(_under_way(workflow), paused=paused, now=event_now(workflow), reason=reason)
    _done(workflow, what, over, as_json=as_json)


def _done(workflow: Workflow, what: str, step: RolloutStep | None, *, as_json: bool) -> None:
    if step is None:
        raise ServingError("the rollout has moved on meanwhile; look again: raywf rollout status")
    _note(workflow, what, step)
    _show(step, as_json=as_json)


def _under_way(workflow: Workflow) -> RolloutStep:
    step = Rollouts(workflow.stores.root, workflow.name).latest()
    if step is None or step.is_over:
        raise ServingError(f"no rollout of {workflow.name} is under way")
    return step


def _connected(workflow: Workflow) -> Registry:
    from raywf.loop.cluster import connect
    from raywf.loop.local import cluster_address, find_local
    from raywf.registry.registry import open_registry

    if find_local(workflow) is None and cluster_address(workflow) is None:
        raise ServingError(f"{workflow.name} is not up; next: raywf serve up")
    connect(workflow)
    return open_registry(workflow)


def _note(workflow: Workflow, what: str, step: RolloutStep) -> None:
    Audit(workflow.stores.root, workflow.name).note_command(
        what, {"rollout": step.rollout, "step": step.number}
    )


def _show(step: RolloutStep, *, as_json: bool) -> None:
    show(step, as_json=as_json, lines=[_title(step), *(f"  {reason}" for reason in step.reasons)])


def _title(step: RolloutStep) -> str:
    who = ", ".join(step.challengers)
    held = ", paused" if step.paused else ""
    state = f"{step.stage}, {step.share:.0%} of the traffic{held}"
    return f"{step.mode} of version {who} beside {step.champion}: {state}"


def _row(step: RolloutStep) -> tuple[object, ...]:
    stage = f"{step.stage}, paused" if step.paused else step.stage
    return (
        step.number,
        format_time(step.wall_time),
        stage,
        f"{step.share:.0%}",
        step.reasons[0] if step.reasons else "",
    )
