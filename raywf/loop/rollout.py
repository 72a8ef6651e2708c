"""Carries rollouts from step to step: what the log shows, the policy's move, the next step in the journal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import ray

from raywf.core.clock import format_time
from raywf.core.errors import RegistryError, ServingError
from raywf.core.ids import stable_id
from raywf.core.journal import BY_HAND, FINAL, Journal
from raywf.core.records import Decision, ModelVersion
from raywf.core.rollout import Duel, Rollouts, RolloutStep
from raywf.core.settings import Workflow
from raywf.loop.promote import promote
from raywf.policy.rollout import Move, judge_rollout
from raywf.registry.registry import CHAMPION, Registry
from raywf.serving.deploy import app_name
from raywf.serving.rollouts import LaneStatus
from raywf.serving.swap import call_replicas

_ANSWER_S = 30.0
_TELL_S = 5.0


class RolloutKeeper:
    """Looks after the rollout that is under way; of one that is over, it sees that the journal says so.

    It keeps nothing but `last`, its last move: the steps say where things stand, and each thing that it does
    may be done again, so one that is started anew goes on from there.
    """

    def __init__(self, workflow: Workflow, registry: Registry, monitor: Any) -> None:
        self._workflow, self._registry, self._monitor = workflow, registry, monitor
        self._rollouts = Rollouts(workflow.stores.root, workflow.name)
        self.last: Move | None = None

    def tick(self, now: datetime | None) -> bool:
        """Look once at `now` (event time); return whether a rollout is under way."""
        step = self._rollouts.latest()
        if step is None:
            return False
        if step.is_over:
            settle_rollout(self._workflow, self._registry, step)
            return False
        champion = self._registry.find(CHAMPION)
        if champion is None or champion.version != step.champion:
            self._overtaken(step, champion)
            return True
        lanes = tell_replicas(self._workflow)
        refused = [lane for lane in lanes if not lane.ok]
        if refused:
            end_rollout(
                self._workflow, self._registry, step, stage="rolled_back", reasons=(refused[0].reason,)
            )
        elif now is not None:
            self._judge(step, now, lanes)
        return True

    def _judge(self, step: RolloutStep, now: datetime, lanes: Sequence[LaneStatus]) -> None:
        settings = self._workflow.rollout
        duels: tuple[Duel, ...] = ray.get(self._monitor.duels.remote(step, settings.bake), timeout=_ANSWER_S)
        growth_mb = max((lane.growth_mb for lane in lanes), default=None)
        self.last = move = judge_rollout(step, duels, settings, now=now, growth_mb=growth_mb)
        move.figures["dropped"] = sum(lane.dropped for lane in lanes)
        if move.stage == "promoted":
            finish_rollout(self._workflow, self._registry, step, move, now=now)
        elif move.stage in {"rolled_back", "aborted"}:
            end_rollout(
                self._workflow,
                self._registry,
                step,
                stage=move.stage,
                reasons=move.reasons,
                figures=move.figures,
            )
        elif move.share != step.share:
            self._rollouts.follow(
                step, share=move.share, time=now, reasons=move.reasons, figures=move.figures
            )
            tell_replicas(self._workflow)

    def _overtaken(self, step: RolloutStep, champion: ModelVersion | None) -> None:
        """End a rollout whose champion serves no more: by its own end, cut off, or by another hand."""
        if champion is not None and champion.version in step.challengers:
            reasons = step.reasons or (f"version {champion.version} is champion",)
            self._rollouts.follow(step, stage="promoted", share=1.0, reasons=reasons)
            return
        reason = f"version {step.champion} is not the champion any more"
        end_rollout(self._workflow, self._registry, step, stage="aborted", reasons=(reason,))


def start_rollout(
    workflow: Workflow,
    registry: Registry,
    versions: Sequence[ModelVersion],
    *,
    decision: Decision,
    reasons: Sequence[str] = (),
) -> RolloutStep:
    """Begin a rollout of the versions by the workflow's settings; replicas take it up within seconds.

    Raises:
        ServingError: if another one is under way, or a replica cannot serve a version.
        RegistryError: if there is no champion.
    """
    settings = workflow.rollout
    champion = registry.resolve(CHAMPION)
    step = Rollouts(workflow.stores.root, workflow.name).start(
        "shadow" if settings.mode == "direct" else settings.mode,
        champion=champion.version,
        challengers=[version.version for version in versions],
        share=settings.first_share,
        time=decision.time,
        decision_id=decision.id,
        reasons=reasons,
    )
    tell_replicas(workflow)
    return step


def start_by_hand(
    workflow: Workflow, registry: Registry, versions: Sequence[ModelVersion], *, now: datetime
) -> RolloutStep:
    """Begin a rollout at `now` (event time) because a user says so; the journal has it as a decision.

    Raises:
        ServingError, RegistryError: as `start_rollout`.
    """
    champion = registry.resolve(CHAMPION)
    if any(version.version == champion.version for version in versions):
        raise RegistryError(f"version {champion.version} is the champion already")
    names = ", ".join(version.version for version in versions)
    decision = Decision(
        id=stable_id(workflow.name, "promote", BY_HAND, datetime.now(UTC).isoformat()),
        workflow=workflow.name,
        kind="promote",
        cause=BY_HAND,
        window=format_time(now),
        reasons=(f"{workflow.rollout.mode} of version {names} by hand",),
        time=now,
    )
    Journal(workflow.stores.root, workflow.name).decide(decision)
    return start_rollout(workflow, registry, versions, decision=decision, reasons=decision.reasons)


def finish_rollout(
    workflow: Workflow, registry: Registry, step: RolloutStep, move: Move, *, now: datetime
) -> RolloutStep | None:
    """Make the move's version champion and write the rollout's last step; None if somebody was faster.

    Raises:
        ServingError: if a replica refuses it; the rollout goes on then.
    """
    promote(workflow, registry, registry.version(move.version))
    over = Rollouts(workflow.stores.root, workflow.name).follow(
        step, stage="promoted", share=1.0, time=now, reasons=move.reasons, figures=move.figures
    )
    if over is not None:
        settle_rollout(workflow, registry, over)
    return over


def end_rollout(
    workflow: Workflow,
    registry: Registry,
    step: RolloutStep,
    *,
    stage: str,
    reasons: Sequence[str],
    figures: dict[str, Any] | None = None,
) -> RolloutStep | None:
    """Give all traffic to the champion and write the rollout's last step; None if somebody was faster."""
    rollouts = Rollouts(workflow.stores.root, workflow.name)
    over = rollouts.follow(
        step, stage=stage, share=0.0, paused=False, reasons=tuple(reasons), figures=figures or {}
    )
    if over is not None:
        settle_rollout(workflow, registry, over)
    return over


def tell_replicas(workflow: Workflow) -> list[LaneStatus]:
    """Let every replica take the present step up now, and return what each says; none where none answers.

    One that does not hear of it looks by itself.
    """
    try:
        found = call_replicas(app_name(workflow), "rollout", deadline=time.monotonic() + _TELL_S)
    except ServingError:
        return []
    return [lane for lane in found if isinstance(lane, LaneStatus)]


def settle_rollout(workflow: Workflow, registry: Registry, step: RolloutStep) -> None:
    """Let replicas, registry and journal know a rollout's end, once; whoever wrote its last step."""
    journal = Journal(workflow.stores.root, workflow.name)
    decision = journal.decision(step.decision_id)
    if decision is None or FINAL & journal.stages(decision.id).keys():
        return
    tell_replicas(workflow)
    won = step.stage == "promoted"
    if not won:
        status = "rolled_back" if step.stage == "rolled_back" else "rejected"
        for version in step.challengers:
            registry.mark(version, status, reason="; ".join(step.reasons))
    figures = {"version": step.challengers[0], "rollout": step.rollout, "mode": step.mode, **step.figures}
    journal.record(decision, "promoted" if won else "rejected", reasons=step.reasons, figures=figures)


def advance_rollout(
    workflow: Workflow, registry: Registry, step: RolloutStep, *, now: datetime, version: str | None = None
) -> RolloutStep | None:
    """Take a rollout's next step at `now` because a user says so: the next share, or `version` is champion.

    Raises:
        ServingError: if it is over, or has several challengers and none is named.
    """
    if step.is_over:
        raise ServingError(f"the rollout is over: {step.stage}")
    name = version or step.challengers[0]
    if name not in step.challengers or (version is None and len(step.challengers) > 1):
        raise ServingError(f"say which becomes champion: {', '.join(step.challengers)}")
    reasons = ("advanced by hand",)
    later = [share for share in workflow.rollout.steps if share > step.share] if step.mode == "canary" else []
    if later:
        over = Rollouts(workflow.stores.root, workflow.name).follow(
            step, share=later[0], time=now, paused=False, reasons=reasons, figures={}
        )
        tell_replicas(workflow)
        return over
    move = Move(stage="promoted", share=1.0, version=name, reasons=reasons)
    return finish_rollout(workflow, registry, step, move, now=now)
