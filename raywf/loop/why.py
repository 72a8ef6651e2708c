"""One version's story, gathered from where each part is kept: journal, ledger, registry and rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from raywf.core.codec import DecodeError, decode
from raywf.core.errors import NoVersionError, did_you_mean
from raywf.core.journal import LOOKED, Journal
from raywf.core.probe import Probe
from raywf.core.records import Decision, JournalEntry, ModelVersion, Snapshot, Sweep, Verdict
from raywf.core.rollout import Rollouts, RolloutStep
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.cost.allot import Parts, allot
from raywf.loop.explain import known_versions
from raywf.search.ledger import Ledger
from raywf.snapshots.catalog import find_snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """A decision and the stages that it reached, in the order of the wall's time."""

    decision: Decision
    stages: tuple[JournalEntry, ...]

    def stage(self, name: str) -> JournalEntry | None:
        """Return one stage, if it was reached."""
        return next((entry for entry in self.stages if entry.stage == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reign:
    """A time (the wall's) as champion; `successor` is the version that came after, if one did."""

    start: datetime
    end: datetime | None = None
    successor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStory:
    """From the alarm to the swap, and on: what is there of it.

    `made_by` is what asked for the version (its reasons are the evidence), `looks` are those at the champion
    before it that came first, `deeds` what else was decided of it: by hand, or a rollback. `rollout` are the
    steps of all rollouts and watches of it. `cost` is the search's by what it paid for.
    """

    version: ModelVersion
    made_by: Deed | None
    looks: tuple[Probe, ...]
    snapshot: Snapshot | None
    sweep: Sweep | None
    verdict: Verdict | None
    rollout: tuple[RolloutStep, ...]
    deeds: tuple[Deed, ...]
    reigns: tuple[Reign, ...]
    cost: Parts


def tell_version(workflow: Workflow, target: str) -> VersionStory:
    """Return the story of the version that a number or an alias names.

    Raises:
        NoVersionError: if nothing has that name.
        RegistryError: if the registry does not answer.
    """
    root = workflow.stores.root
    version = find_version(workflow, target)
    journal = Journal(root, workflow.name)
    entries = journal.entries()
    deeds = tuple(
        Deed(decision=d, stages=tuple(e for e in entries if e.decision_id == d.id))
        for d in journal.decisions()
    )
    made_by = next((d for d in deeds if d.decision.id == version.decision_id), None)
    steps = _steps(Rollouts(root, workflow.name), version.version)
    ledger = Ledger(root, version.sweep_id)
    sweep = ledger.read_sweep()
    return VersionStory(
        version=version,
        made_by=made_by,
        looks=_looks(entries, version, made_by),
        snapshot=find_snapshot(Store(root), workflow.name, version.snapshot_id),
        sweep=sweep,
        verdict=_verdict(made_by),
        rollout=steps,
        deeds=tuple(d for d in deeds if d is not made_by and _concerns(d, version.version, steps)),
        reigns=find_reigns(entries, version.version),
        cost=allot(sweep, ledger.attempts()),
    )


def find_reigns(entries: Sequence[JournalEntry], version: str) -> tuple[Reign, ...]:
    """Return when a version was champion, by the journal's entries in the order of the wall's time."""
    reigns: list[Reign] = []
    for entry in entries:
        name = str(entry.figures.get("version", ""))
        if entry.stage != "promoted" or not name:
            continue
        under_way = reigns and reigns[-1].end is None
        if name == version and not under_way:
            reigns.append(Reign(start=entry.wall_time))
        elif name != version and under_way:
            reigns[-1] = Reign(start=reigns[-1].start, end=entry.wall_time, successor=name)
    return tuple(reigns)


def find_version(workflow: Workflow, target: str) -> ModelVersion:
    versions = known_versions(workflow)
    by_name = {alias: v for v in versions for alias in v.aliases} | {v.version: v for v in versions}
    if target not in by_name:
        hint = did_you_mean(target, by_name) if by_name else "; 'raywf run' makes a first one"
        raise NoVersionError(f"{workflow.name!r} has no version {target!r}{hint}")
    return by_name[target]


def _steps(rollouts: Rollouts, version: str) -> tuple[RolloutStep, ...]:
    steps = rollouts.steps()
    concerned = {step.rollout for step in steps if version in step.challengers}
    return tuple(step for step in steps if step.rollout in concerned)


def _looks(entries: Sequence[JournalEntry], version: ModelVersion, made_by: Deed | None) -> tuple[Probe, ...]:
    """Return the looks at the version's parent until it was decided to make the version."""
    if made_by is None:
        return ()
    found = (decode(Probe, e.figures) for e in entries if e.stage == LOOKED)
    return tuple(p for p in found if p.version == version.parent and p.time <= made_by.decision.time)


def _concerns(deed: Deed, version: str, steps: Sequence[RolloutStep]) -> bool:
    if deed.decision.kind == "probe":
        return False
    named = {str(e.figures.get(key, "")) for e in deed.stages for key in ("version", "failed")}
    return version in named or deed.decision.id in {step.decision_id for step in steps}


def _verdict(made_by: Deed | None) -> Verdict | None:
    gated = made_by.stage("gated") if made_by is not None else None
    if gated is None:
        return None
    try:
        return decode(Verdict, gated.figures)
    except DecodeError:
        return None
