"""The recorded log and journal played back: does the policy decide as it did?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from raywf.core.journal import BY_HAND, FINAL, Journal
from raywf.core.own import workflow_metric
from raywf.core.records import Decision, JournalEntry, ModelVersion
from raywf.core.service import Service
from raywf.core.settings import Workflow
from raywf.loop.decided import history_of, past_decisions
from raywf.loop.landed import Landed
from raywf.loop.references import RegistryReferences
from raywf.monitor.fold import Fold
from raywf.outcomes.lines import Entry
from raywf.outcomes.reader import LogReader
from raywf.policy.growth import DATA
from raywf.policy.policy import decide
from raywf.registry.registry import Registry

_OURS = frozenset({"retrain", "probe"})
_BETWEEN = timedelta(days=1)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What is decided when the log is played back, beside what was; `recorded` is None where nothing was."""

    replayed: Decision
    recorded: Decision | None

    @property
    def holds(self) -> bool:
        """Whether it is the same decision, or none both times."""
        if self.recorded is None:
            return self.replayed.kind not in _OURS
        return self.replayed.id == self.recorded.id


def replay_log(workflow: Workflow, registry: Registry) -> tuple[Agreement, ...]:
    """Decide again at the event time of each of the controller's decisions, and once a day between.

    The same fold is given the log's records up to then, the same policy the journal before it; of several
    decisions at one time, as a look and the retraining that follows from it, each after the one before it.
    What the running system decided later, under the same id, it had not come to yet: it looks by the wall's
    time, and at nothing while a job runs.

    Raises:
        RegistryError: if the registry does not tell of a version.
    """
    journal = Journal(workflow.stores.root, workflow.name)
    entries = journal.entries()
    decisions = _in_order(journal.decisions(), entries)
    read = LogReader(workflow.stores.root, workflow.name).read()[0]
    events = (entry for entry in read if not isinstance(entry, Service))
    log: list[Entry] = sorted(events, key=lambda entry: entry.time)
    ours = [d for d in decisions if d.kind in _OURS and d.cause != BY_HAND]
    if not log:
        return ()
    fold = Fold(workflow.monitor, RegistryReferences(workflow, registry), metric=workflow_metric(workflow))
    found, at, wishes = [], 0, journal.requests()
    for now, recorded in _moments(ours, log[0].time, log[-1].time):
        until = next((i for i, e in enumerate(itertools.islice(log, at, None), at) if e.time > now), len(log))
        fold.update(log[at:until])
        at = until
        count = decisions.index(recorded) if recorded else sum(d.time < now for d in decisions)
        before = decisions[:count]
        champion = _champion(registry, before, entries)
        if champion is None:
            continue
        known = {d.id for d in before}
        told = [e for e in entries if e.decision_id in known]
        asked = {recorded.window} if recorded is not None and recorded.cause == "request" else set()
        requests = {request: wishes.get(request, "") for request in asked}
        past = past_decisions(before, told)
        history = history_of(past, told, champion, requests=requests, landed=_landed(recorded))
        if any(p.decision in ours and p.stage not in FINAL for p in past):  # it ran until the log ends
            history = replace(history, running=True)
        decision = decide(
            fold.evidence(champion.version),
            history,
            workflow.retrain,
            workflow=workflow.name,
            now=now,
            min_labelled=workflow.monitor.min_labelled,
        )
        if recorded is None and decision.id in {d.id for d in ours}:
            decision = replace(decision, kind="skip")  # the running system came to it when it looked next
        found.append(Agreement(replayed=decision, recorded=recorded))
    return tuple(found)


def _in_order(decisions: Sequence[Decision], entries: Sequence[JournalEntry]) -> list[Decision]:
    """Return decisions by their time, and of one time by when they were begun."""
    begun = {entry.decision_id: entry.wall_time for entry in reversed(entries)}
    return sorted(decisions, key=lambda d: (d.time, begun.get(d.id, _NEVER)))


def _moments(
    decided: Sequence[Decision], start: datetime, end: datetime
) -> list[tuple[datetime, Decision | None]]:
    """Return when to decide again, and what was decided then: nothing, once a day between."""
    days = {start + n * _BETWEEN for n in range(1, (end - start) // _BETWEEN + 1)}
    moments: list[tuple[datetime, Decision | None]] = [(d.time, d) for d in decided]
    moments += [(time, None) for time in days - {d.time for d in decided}]
    return sorted(moments, key=lambda moment: moment[0])


def _landed(recorded: Decision | None) -> Landed | None:
    """Return the data that a recorded decision tells of; the tables as they were are not kept."""
    return Landed(recorded.window, ()) if recorded is not None and recorded.cause == DATA else None


def _champion(
    registry: Registry, decisions: Sequence[Decision], entries: Sequence[JournalEntry]
) -> ModelVersion | None:
    known = {d.id for d in decisions}
    promoted = [e for e in entries if e.stage == "promoted" and e.decision_id in known]
    return registry.version(str(promoted[-1].figures["version"])) if promoted else None
