"""Carries rollouts from step to step: what the log shows, the policy's move, the next step in the journal."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import ray

from raywf.core.clock import format_time
from raywf.core.errors import RegistryError, ServingError
from raywf.core.ids import stable_id
from raywf.core.journal import BY_HAND, FINAL, ROLLOUT, Journal
from raywf.core.records import Decision, ModelVersion
from raywf.core.rollout import Duel, Rollouts, RolloutStep
from raywf.core.settings import Workflow
from raywf.loop.promote import promote
from raywf.loop.watch import begin_watch, end_watch, settle_watch, take_back, timed_alike
from raywf.policy.rollout import Move, judge_rollout
from raywf.registry.registry import CHAMPION, Registry
from raywf.serving.deploy import app_name
from raywf.serving.rollouts import LaneStatus
from raywf.serving.swap import call_replicas

_ANSWER_S = 30.0
_TELL_S = 15.0  # the replicas of a machine load what a step names in turn
_GROWTH_LOOKS = 3  # in a row that memory has to be up, lest a burst of large requests ends a rollout


class RolloutKeeper:
    """Looks after the rollout that is under way; of one that is over, it sees that the journal says so.

    It keeps nothing but `last`, its last move: the steps say where things stand, and each thing that it does
    may be done again, so one that is started anew goes on from there.
    """

    def __init__(self, workflow: Workflow, registry: Registry, monitor: Any) -> None:
        self._workflow, self._registry, self._monitor = workflow, registry, monitor
        self._rollouts = Rollouts(workflow.stores.root, workflow.name)
        self._growth_mb: deque[float] = deque(maxlen=_GROWTH_LOOKS)
        self.last: Move | None = None

    def tick(self, now: datetime | None) -> bool:
        """Look once at `now` (event time); return whether a rollout is under way that nothing may disturb."""
        step = self._rollouts.latest()
        if step is not None and step.mode == "watch":
            return self._watch(step, now)
        if step is not None and step.is_over:
            settle_rollout(self._workflow, self._registry, step)
        if step is None or step.is_over:
            return now is not None and self._begin_any(now)
        champion = self._registry.find(CHAMPION)
        if champion is None or champion.version != step.serves:
            self._overtaken(step, champion)
            return True
        lanes = tell_replicas(self._workflow)
        refused = [lane for lane in lanes if not lane.ok]
        if step.paused:
            self.last = judge_rollout(step, (), self._workflow.rollout, now=step.time)
        elif refused:
            end_rollout(
                self._workflow, self._registry, step, stage="rolled_back", reasons=(refused[0].reason,)
            )
        elif now is not None:
            self._judge(step, now, lanes)
        return True

    def _begin_any(self, now: datetime) -> bool:
        """Begin a rollout that waits, or else to watch a champion that has just become one."""
        if self._begin(now):
            return True
        if begin_watch(self._workflow, self._registry, now=now) is not None:
            tell_replicas(self._workflow)
        return False

    def _watch(self, step: RolloutStep, now: datetime | None) -> bool:
        """Look after a watch, which holds nothing up: a rollout that waits ends it and begins.

        What cannot be done now, such as a rollback to a version that a replica refuses, is tried again.
        """
        try:
            if step.is_over:
                settle_watch(self._workflow, self._registry, step)
                return now is not None and self._begin_any(now)
            if now is not None and self._begin(now):
                return True
            champion = self._registry.find(CHAMPION)
            if champion is None or champion.version != step.serves:
                self._overtaken(step, champion)
            elif step.paused:
                self.last = judge_rollout(step, (), self._workflow.rollout, now=step.time)
            elif now is not None:
                self._judge_watch(step, now)
        except (ServingError, RegistryError) as err:
            reason = f"not done yet: {err}"
            self.last = Move(stage=step.stage, share=step.share, version=step.serves, reasons=(reason,))
        return False

    def _judge_watch(self, step: RolloutStep, now: datetime) -> None:
        lanes = tell_replicas(self._workflow)
        refused = [lane for lane in lanes if not lane.ok]
        if refused:
            reasons = (refused[0].reason,)
            take_back(self._workflow, self._registry, step, now=now, reasons=reasons, figures={})
            return
        duels = self._duels(step, self._workflow.rollout.watch, now)
        move = self._move(step, [timed_alike(duel, lanes) for duel in duels], now, lanes)
        if move.stage == "rolled_back":
            take_back(
                self._workflow, self._registry, step, now=now, reasons=move.reasons, figures=move.figures
            )
        elif move.stage == "kept":
            end_watch(self._workflow, self._registry, step, reasons=move.reasons, figures=move.figures)

    def _begin(self, now: datetime) -> bool:
        """Begin the rollout that a retraining asked for the longest ago, if one waits; return whether."""
        journal = Journal(self._workflow.stores.root, self._workflow.name)
        entries = journal.entries()
        ended = {entry.decision_id for entry in entries if entry.stage in FINAL}
        waiting = [e for e in entries if e.stage == ROLLOUT and e.decision_id not in ended]
        decision = journal.decision(waiting[0].decision_id) if waiting else None
        if decision is None:
            return False
        version = self._registry.version(waiting[0].figures["version"])
        start_rollout(
            self._workflow,
            self._registry,
            [version],
            decision_id=decision.id,
            now=now,
            reasons=waiting[0].reasons,
        )
        return True

    def _duels(self, step: RolloutStep, length: timedelta, now: datetime) -> tuple[Duel, ...]:
        found: tuple[Duel, ...] = ray.get(self._monitor.duels.remote(step, length, now), timeout=_ANSWER_S)
        return found

    def _move(
        self, step: RolloutStep, duels: Sequence[Duel], now: datetime, lanes: Sequence[LaneStatus]
    ) -> Move:
        """Return what follows, and remember it."""
        growth_mb = self._growth(step, lanes)
        move = judge_rollout(step, duels, self._workflow.rollout, now=now, growth_mb=growth_mb)
        troubles = sorted({lane.reason for lane in lanes if lane.reason})
        dropped = sum(lane.dropped for lane in lanes)
        self.last = dataclasses.replace(
            move, reasons=(*move.reasons, *troubles), figures={**move.figures, "dropped": dropped}
        )
        return self.last

    def _judge(self, step: RolloutStep, now: datetime, lanes: Sequence[LaneStatus]) -> None:
        move = self._move(step, self._duels(step, self._workflow.rollout.bake, now), now, lanes)
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

    def _growth(self, step: RolloutStep, lanes: Sequence[LaneStatus]) -> float | None:
        """Return what the replicas' memory has grown by in each of the last looks; None of a shadow's."""
        if step.mode == "shadow" or not lanes:
            return None
        self._growth_mb.append(max(lane.growth_mb for lane in lanes))
        return min(self._growth_mb) if len(self._growth_mb) == _GROWTH_LOOKS else None

    def _overtaken(self, step: RolloutStep, champion: ModelVersion | None) -> None:
        """End a rollout whose champion serves no more, by another hand."""
        if step.mode != "watch" and champion is not None and champion.version in step.challengers:
            reasons = (f"version {champion.version} became champion by hand",)
            figures = {"version": champion.version}
            self._rollouts.follow(
                step, stage="promoted", share=1.0, paused=False, reasons=reasons, figures=figures
            )
            return
        reason = f"version {step.serves} is not the champion any more"
        end_rollout(self._workflow, self._registry, step, stage="aborted", reasons=(reason,))


def start_rollout(
    workflow: Workflow,
    registry: Registry,
    versions: Sequence[ModelVersion],
    *,
    decision_id: str,
    now: datetime,
    reasons: Sequence[str] = (),
) -> RolloutStep:
    """Begin a rollout at `now` by the workflow's settings; replicas take it up within seconds.

    A watch that is under way ends with it.

    Raises:
        ServingError: if another one is under way, or a watch is just ending otherwise.
        RegistryError: if there is no champion.
    """
    settings = workflow.rollout
    latest = Rollouts(workflow.stores.root, workflow.name).latest()
    if latest is not None and latest.mode == "watch" and not latest.is_over:
        reasons_of_end = ("another rollout begins",)
        if end_watch(workflow, registry, latest, reasons=reasons_of_end) is None:
            raise ServingError("the watch has ended meanwhile; look again: raywf rollout status")
    champion = registry.resolve(CHAMPION)
    step = Rollouts(workflow.stores.root, workflow.name).start(
        "shadow" if settings.mode == "direct" else settings.mode,
        champion=champion.version,
        challengers=[version.version for version in versions],
        share=settings.first_share,
        time=now,
        decision_id=decision_id,
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
    journal = Journal(workflow.stores.root, workflow.name)
    journal.decide(decision)
    try:
        return start_rollout(
            workflow, registry, versions, decision_id=decision.id, now=now, reasons=decision.reasons
        )
    except (ServingError, RegistryError) as err:
        journal.record(decision, "failed", reasons=(str(err),))
        raise


def finish_rollout(
    workflow: Workflow, registry: Registry, step: RolloutStep, move: Move, *, now: datetime
) -> RolloutStep:
    """Write the rollout's last step and make the move's version champion; return that step.

    The step is written once every replica is ready and before the alias moves, so that nobody else can end
    the rollout otherwise meanwhile.

    Raises:
        ServingError: if a replica refuses the version, or somebody was faster; the rollout stands as it did.
    """
    rollouts, over = Rollouts(workflow.stores.root, workflow.name), []
    figures = {**move.figures, "version": move.version}

    def claim() -> None:
        last = rollouts.follow(
            step, stage="promoted", share=1.0, time=now, paused=False, reasons=move.reasons, figures=figures
        )
        if last is None:
            raise ServingError("the rollout has moved on meanwhile; look again: raywf rollout status")
        over.append(last)

    promote(workflow, registry, registry.version(move.version), claim=claim)
    settle_rollout(workflow, registry, over[0])
    return over[0]


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
    if step.mode == "watch":
        settle_watch(workflow, registry, step)
        return
    journal = Journal(workflow.stores.root, workflow.name)
    decision = journal.decision(step.decision_id)
    if decision is None or FINAL & journal.stages(decision.id).keys():
        return
    tell_replicas(workflow)
    won = step.stage == "promoted"
    if won:
        _complete(workflow, registry, step)
    else:
        status = "rolled_back" if step.stage == "rolled_back" else "rejected"
        for version in step.challengers:
            registry.mark(version, status, reason="; ".join(step.reasons))
    figures = {"version": step.challengers[0], "rollout": step.rollout, "mode": step.mode, **step.figures}
    journal.record(decision, "promoted" if won else "rejected", reasons=step.reasons, figures=figures)


def _complete(workflow: Workflow, registry: Registry, step: RolloutStep) -> None:
    """Move the alias for a step that was written by a process which was killed before it could."""
    champion = registry.find(CHAMPION)
    if champion is not None and champion.version == step.champion:
        promote(workflow, registry, registry.version(str(step.figures["version"])))


def advance_rollout(
    workflow: Workflow, registry: Registry, step: RolloutStep, *, now: datetime, version: str | None = None
) -> RolloutStep | None:
    """Take a rollout's next step at `now` because a user says so: the next share, or `version` is champion.

    Raises:
        ServingError: if it is over, has several challengers and none is named, or a replica refuses it.
    """
    if step.is_over:
        raise ServingError(f"the rollout is over: {step.stage}")
    if step.mode == "watch":
        return end_watch(workflow, registry, step, reasons=("kept by hand",))
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
