"""A new champion's first hours: the former one sees the same rows, and is champion again if it does harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from raywf.core.clock import format_time
from raywf.core.errors import ServingError
from raywf.core.ids import stable_id
from raywf.core.journal import FINAL, Journal
from raywf.core.records import Decision, JournalEntry
from raywf.core.rollout import Duel, Rollouts, RolloutStep
from raywf.core.settings import Workflow
from raywf.loop.promote import promote
from raywf.registry.registry import CHAMPION, PREVIOUS, Registry
from raywf.serving.rollouts import LaneStatus

_CAUSE = "watch"
_LATE = timedelta(hours=1)  # a controller that was away for longer than this, and the watch, begins none


def begin_watch(workflow: Workflow, registry: Registry, *, now: datetime) -> RolloutStep | None:
    """Begin to watch the champion at `now` (event time) if it became one just now; return the first step.

    None where there is nothing to go back to, where the promotion is long past or was a rollback, or where
    it was watched already.
    """
    if not workflow.rollout.watch:
        return None
    champion, former = registry.find(CHAMPION), registry.find(PREVIOUS)
    if champion is None or former is None or former.status == "rolled_back":
        return None
    promotion = _promotion(workflow, champion.version)
    if promotion is None or datetime.now(UTC) - promotion.wall_time > workflow.rollout.watch + _LATE:
        return None
    rollouts, cause = Rollouts(workflow.stores.root, workflow.name), f"{promotion.decision_id}-{_CAUSE}"
    if any(step.decision_id == cause for step in rollouts.steps()):
        return None
    reason = f"version {champion.version} is champion, {former.version} was"
    return rollouts.start(
        "watch",
        champion=former.version,
        challengers=(champion.version,),
        share=1.0,
        time=now,
        decision_id=cause,
        reasons=(reason,),
    )


def end_watch(
    workflow: Workflow,
    registry: Registry,
    step: RolloutStep,
    *,
    reasons: Sequence[str],
    figures: Mapping[str, Any] | None = None,
) -> RolloutStep | None:
    """Keep the new champion and watch it no more; None if somebody was faster."""
    over = Rollouts(workflow.stores.root, workflow.name).follow(
        step, stage="kept", share=1.0, paused=False, reasons=tuple(reasons), figures=dict(figures or {})
    )
    if over is not None:
        settle_watch(workflow, registry, over)
    return over


def timed_alike(duel: Duel, lanes: Sequence[LaneStatus]) -> Duel:
    """Return a watch's duel with times that the replicas took of both versions on the same rows.

    The former champion answers as a shadow only, in batches and by a process of the lowest priority.
    """
    found = [lane.row_us for lane in lanes if lane.row_us is not None]
    if not found:
        return replace(duel, champion=replace(duel.champion, took_us=None))
    former, new = (median(times) for times in zip(*found, strict=True))
    return replace(
        duel,
        champion=replace(duel.champion, took_us=(former, former)),
        challenger=replace(duel.challenger, took_us=(new, new)),
    )


def take_back(
    workflow: Workflow,
    registry: Registry,
    step: RolloutStep,
    *,
    now: datetime,
    reasons: Sequence[str],
    figures: Mapping[str, Any],
) -> None:
    """Make the former champion champion again in every replica; the failed version keeps the reasons.

    The last step is written once every replica is ready, so that the former champion answers what the failed
    one cannot until then; `settle_watch` does what an interruption left undone.

    Raises:
        ServingError: if a replica refuses the former version, or somebody was faster; nothing has changed.
    """
    journal = Journal(workflow.stores.root, workflow.name)
    decision = Decision(
        id=_rollback_id(workflow, step),
        workflow=workflow.name,
        kind="rollback",
        cause=_CAUSE,
        window=format_time(step.time),
        reasons=tuple(reasons),
        time=now,
    )
    journal.decide(decision)
    over: list[RolloutStep] = []

    def claim() -> None:
        champion = registry.find(CHAMPION)
        if champion is None or champion.version != step.serves:
            raise ServingError(f"version {step.serves} is not the champion any more")
        last = Rollouts(workflow.stores.root, workflow.name).follow(
            step,
            stage="rolled_back",
            share=0.0,
            paused=False,
            reasons=tuple(reasons),
            figures={**figures, "version": step.champion},
        )
        if last is None:
            raise ServingError("the watch has moved on meanwhile")
        over.append(last)

    promote(workflow, registry, registry.version(step.champion), claim=claim)
    settle_watch(workflow, registry, over[0])


def settle_watch(workflow: Workflow, registry: Registry, step: RolloutStep) -> None:
    """Carry out what a watch's last step says, once; whoever wrote it."""
    journal = Journal(workflow.stores.root, workflow.name)
    decision = journal.decision(_rollback_id(workflow, step))
    if decision is None or FINAL & journal.stages(decision.id).keys():
        return
    if step.stage != "rolled_back":
        journal.record(decision, "failed", reasons=("the watch ended before it could be done", *step.reasons))
        return
    failed, former = step.challengers[0], step.champion
    champion = registry.find(CHAMPION)
    if champion is not None and champion.version == failed:
        promote(workflow, registry, registry.version(former))
    registry.mark(failed, "rolled_back", reason="; ".join(step.reasons))
    registry.forget_previous()
    journal.record(decision, "promoted", reasons=step.reasons, figures={**step.figures, "failed": failed})


def refuse_abort(step: RolloutStep) -> None:
    """Refuse to abort a watch, whose version has all of the traffic already.

    Raises:
        ServingError: if the step is a watch's.
    """
    if step.mode == "watch":
        raise ServingError(
            f"version {step.serves} is champion already and only watched: raywf models rollback brings "
            f"version {step.champion} back, raywf rollout advance ends the watch"
        )


def _rollback_id(workflow: Workflow, step: RolloutStep) -> str:
    return stable_id(workflow.name, "rollback", _CAUSE, step.rollout)


def _promotion(workflow: Workflow, version: str) -> JournalEntry | None:
    """Return the entry by which a version became champion last, unless that was a rollback to it."""
    journal = Journal(workflow.stores.root, workflow.name)
    found = [e for e in journal.entries() if e.stage == "promoted" and e.figures.get("version") == version]
    if not found:
        return None
    decision = journal.decision(found[-1].decision_id)
    return None if decision is None or decision.kind == "rollback" else found[-1]
