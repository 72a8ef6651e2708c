"""A backtest: policies side by side on one history, each training done once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from raywf.core.clock import format_time, from_microseconds
from raywf.core.duration import format_duration
from raywf.core.errors import SettingsError
from raywf.core.own import workflow_metric
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.loop.backtest.course import Course
from raywf.loop.backtest.oracle import course_of, refits
from raywf.loop.backtest.past import Past
from raywf.loop.backtest.replay import Replay
from raywf.loop.backtest.rules import Policy, Rule, make_rule
from raywf.loop.backtest.side_by_side import Player, Table
from raywf.loop.backtest.trainings import Trainings
from raywf.loop.cluster import quiet
from raywf.loop.local import may_grow
from raywf.policy.schedule import check_schedule

ORACLE = "oracle"
_STEPS, _FIRST = 20, 0.25  # of a history's rows before the first chance
_FEWEST, _MOST = 3, 100_000
# features are not played back, nor do tables land
_UNPLAYED = frozenset({"drift", "data"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """How late a policy was, beside the oracle: the median over the moments before whose next it came.

    `missed` of the `moments` passed without a new model.
    """

    median: timedelta | None
    moments: int
    missed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """What came of it; losses are the workflow's metric, negated where greater is better."""

    workflow: str
    metric: str
    greater_is_better: bool
    snapshot_id: str
    rows: int
    chances: tuple[datetime, ...]
    courses: tuple[Course, ...]

    def course(self, policy: str) -> Course | None:
        """Return a policy's course, or None."""
        return next((c for c in self.courses if c.policy == policy), None)

    def delay(self, course: Course) -> Delay | None:
        """Return how long after the oracle's moments a policy brought a new model; None without an oracle."""
        oracle = next((c for c in self.courses if c.policy.startswith(ORACLE)), None)
        moments = [] if oracle is None else [e.settled for e in oracle.events if e.stage == "promoted"]
        if oracle is course or not moments:
            return None
        brought = sorted(e.settled for e in course.events if e.kind == "retrain" and e.stage == "promoted")
        waits, ends = [], [*moments[1:], self.chances[-1]]
        for moment, end in zip(moments, ends, strict=True):
            came = next((t for t in brought if moment <= t < end), None)
            if came is not None:
                waits.append(came - moment)
        return Delay(
            median=statistics.median_low(waits) if waits else None,
            moments=len(moments),
            missed=len(moments) - len(waits),
        )

    def gain(self, course: Course) -> float | None:
        """Return how much less a course lost than no retraining, as a share of what the best one gained.

        None without the policy "never", or where none gained.
        """
        never = self.course("never")
        if never is None:
            return None
        most = never.loss - min(c.loss for c in self.courses)
        return (never.loss - course.loss) / most if most > 0 else None


def make_rules(policies: Sequence[str], workflow: Workflow) -> list[Rule | None]:
    """Return the policies' rules, None for the oracle.

    Raises:
        SettingsError: if a policy is neither a text as `make_rule` has it nor "oracle", has no valid schedule
            or joins what a backtest does not play, or if a rollout that waits for a person would have to be.
    """
    rules = [None if policy == ORACLE else make_rule(policy, workflow) for policy in policies]
    for rule in rules:
        if isinstance(rule, Policy):
            check_schedule(rule.settings)
            _refuse_unplayed(rule)
    if workflow.rollout.mode == "ab" and any(rule is not None and rule.gated for rule in rules):
        raise SettingsError(
            "an A/B test ends when somebody says so, which cannot be played back: "
            "--set rollout.mode=canary (or shadow, direct)"
        )
    return rules


def _refuse_unplayed(rule: Policy) -> None:
    condition = rule.settings.condition
    named = () if condition is None else condition.names
    never = [name for name in named if name in _UNPLAYED]
    if condition is not None and never and not condition.held_by(set(named) - _UNPLAYED):
        raise SettingsError(
            f"policy {rule.name!r}: a backtest has no {' and no '.join(never)}, without which "
            f"retrain.when = {rule.settings.when!r} never holds; try it with --policy \"raywf when='...'\""
        )


def compare(
    past: Past,
    policies: Sequence[str],
    chances: Sequence[datetime],
    *,
    say: Callable[[str], None] = lambda _text: None,
    at_once: int | None = None,
) -> Backtest:
    """Play the policies back; Ray must be initialised. Done again, or after an interruption, it goes on.

    A policy is a text as `make_rule` has it, or "oracle": the best choice of moments for refits, as many as
    the policy before it took. `at_once` are played at the same time, by default one for each two CPUs.

    Raises:
        SettingsError: if a policy is none of these.
        RaywfError: if no first model can be trained.
    """
    workflow = past.workflow
    make_rules(policies, workflow)
    shared, instants, grows = ray.put(past), tuple(chances), may_grow(workflow)

    def asked(i: int, courses: Mapping[int, Course]) -> tuple[Any, ...] | None:
        changes = len(instants)
        if policies[i] == ORACLE and i > 0:
            if i - 1 not in courses:
                return None
            changes = courses[i - 1].count("retrain", "promoted")
        return shared, policies[i], instants, changes, grows

    table = Table(most=at_once, concurrent=workflow.search.max_concurrent, say=say)
    courses = table.play(_play, [partial(asked, i) for i in range(len(policies))])
    return Backtest(
        workflow=workflow.name,
        metric=workflow.metric,
        greater_is_better=workflow_metric(workflow).greater_is_better,
        snapshot_id=past.snapshot.id,
        rows=past.snapshot.rows,
        chances=tuple(chances),
        courses=tuple(courses),
    )


def _play(
    player: Player, past: Past, policy: str, chances: Sequence[datetime], changes: int, grows: bool
) -> Course:
    """Play one policy: what a task does."""
    quiet()
    player.say(f"policy: {policy}")
    folder = backtest_folder(past.workflow)
    trainings = Trainings(past, folder, say=player.say, turn=player.turn, grows=grows)
    (rule,) = make_rules([policy], past.workflow)
    if rule is not None:
        return Replay(past, trainings, rule).run(chances)
    models = refits(trainings, chances)
    return course_of(f"{ORACLE} ({changes})", past, models, chances, changes=changes)


def plan_chances(past: Past, *, start: datetime | None, step: timedelta | None) -> list[datetime]:
    """Return the instants at which is decided, the last of them the end.

    Without a `start` it is when a quarter of the labels were known; without a `step` twenty fill the rest.

    Raises:
        SettingsError: if there are fewer than three, or a hundred thousand.
    """
    first = start or from_microseconds(int(np.quantile(past.known, _FIRST)))
    end = from_microseconds(int(past.times[-1]) + 1)
    step = step or max(timedelta(seconds=1), (end - first) / _STEPS)
    count = max(0, int((end - first) / step) + 1)
    if count > _MOST:
        raise SettingsError(
            f"from {format_time(first)} to the last row at {format_time(end)} there are {count:,} steps of "
            f"{format_duration(step)}, more than {_MOST:,}; take longer ones (--step)"
        )
    chances = [first + i * step for i in range(count)]
    if chances and chances[-1] < end:
        chances.append(end)
    if len(chances) < _FEWEST:
        raise SettingsError(
            f"from {format_time(first)} to the last row at {format_time(end)} there are no two steps of "
            f"{format_duration(step)}; begin earlier (--start) or take shorter ones (--step)"
        )
    return chances


def backtest_folder(workflow: Workflow) -> Path:
    """Return where trainings are kept: on this node, where the store is an object store."""
    return Store(workflow.stores.root).node_folder / "backtest" / workflow.name
