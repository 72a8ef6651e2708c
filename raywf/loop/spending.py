"""What a store's searches cost: the ledger, the journal and the registry read together."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import fsum
from pathlib import Path

from raywf.core.clock import format_time
from raywf.core.errors import RaywfError, describe_error
from raywf.core.journal import Journal
from raywf.core.records import Attempt, ModelVersion, Sweep
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.cost.allot import Parts, TrialCost, allot, trial_costs
from raywf.registry.client import tracking_uri
from raywf.registry.registry import Registry
from raywf.search.ledger import Ledger

_log = logging.getLogger(__name__)
SEARCH_ONLY = "search"  # the cause of a sweep that no decision asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCost:
    """One search and its money; `version` is the first that was registered from it, or empty.

    `cause` is the decision's that asked for it.
    """

    sweep_id: str
    workflow: str
    attempts: tuple[Attempt, ...]
    parts: Parts
    trials: tuple[TrialCost, ...]
    version: str
    status: str
    cause: str

    @property
    def day(self) -> str:
        """The day on which it began, UTC."""
        return _day(self.attempts[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """Money under one heading, and the number of searches that it is of."""

    name: str
    searches: int
    parts: Parts
    note: str = ""


def _ledgers(root: str) -> Iterator[Ledger]:
    return (Ledger(root, sweep_id) for sweep_id in Store(root).list("sweeps"))


def attempts_of(root: str, workflow: str) -> list[Attempt]:
    """Return the attempts of all searches of a workflow, finished or not."""
    return [a for ledger in _ledgers(root) for a in ledger.attempts() if a.workflow == workflow]


def spent_on(root: str, decision: str) -> dict[str, float]:
    """Return as figures for the journal what a decision's searches cost so far; none where that is not known.

    A store that is away, or what another raywf has written, is no reason not to write the rest down.
    """
    try:
        found = [a for ledger in _ledgers(root) for a in _readable(ledger) if a.decision == decision]
    except (RaywfError, OSError) as err:
        _log.warning("what decision %s cost is not known: %s", decision, describe_error(err))
        return {}
    return {"spent_usd": fsum(attempt.cost_usd for attempt in found)}


def _readable(ledger: Ledger) -> tuple[Attempt, ...]:
    try:
        return ledger.attempts()
    except ValueError as err:
        _log.warning("what sweep %s cost cannot be read: %s", ledger.sweep_id, describe_error(err))
        return ()


def read_spending(workflow: Workflow) -> tuple[SearchCost, ...]:
    """Return every search of the store, of other workflows too, the first one first.

    Raises:
        RegistryError: if the registry cannot be reached.
    """
    root = workflow.stores.root
    found = []
    for ledger in _ledgers(root):
        attempts = ledger.attempts()
        if attempts:
            found.append((attempts, ledger.read_sweep(), ledger.sweep_id))
    causes, versions = (
        _causes(root),
        _first_versions(workflow, {attempts[0].workflow for attempts, _, _ in found}),
    )
    made = (_search_cost(*one, version=versions.get(one[2]), cause=causes.get(one[2])) for one in found)
    return tuple(sorted(made, key=lambda s: s.attempts[0].started))


def by_version(searches: Iterable[SearchCost]) -> tuple[CostLine, ...]:
    """Return a line a model version, and one for searches that no version came of."""
    groups: dict[tuple[bool, int, str], list[SearchCost]] = defaultdict(list)
    for search in searches:
        groups[(not search.version, int(search.version or 0), search.version or "none")].append(search)
    lines = []
    for (none, _, name), members in sorted(groups.items()):
        note = "searches without a version" if none else members[0].status
        lines.append(_line(name, members, note=note))
    return tuple(lines)


def by_sweep(searches: Iterable[SearchCost]) -> tuple[CostLine, ...]:
    """Return a line a search, the first one first."""
    return tuple(_line(s.sweep_id, [s], note=_story(s)) for s in searches)


def by_workflow(searches: Iterable[SearchCost]) -> tuple[CostLine, ...]:
    """Return a line a workflow of the store."""
    groups: dict[str, list[SearchCost]] = defaultdict(list)
    for search in searches:
        groups[search.workflow].append(search)
    return tuple(
        _line(name, members, note=f"versions: {sum(bool(s.version) for s in members)}")
        for name, members in sorted(groups.items())
    )


def by_day(searches: Iterable[SearchCost]) -> tuple[CostLine, ...]:
    """Return a line a day (UTC); an attempt counts to the day on which it began."""
    days: dict[str, list[Parts]] = defaultdict(list)
    for search in searches:
        total = sum(a.cost_usd for a in search.attempts)
        for attempt in search.attempts:
            days[_day(attempt)].append(_share(search.parts, attempt.cost_usd / total if total else 0.0))
    return tuple(
        CostLine(name=day, searches=len(parts), parts=sum(parts, Parts()))
        for day, parts in sorted(days.items())
    )


def by_family(searches: Iterable[SearchCost]) -> tuple[CostLine, ...]:
    """Return a line a model family, the dearest first; then what no trial held, and unfinished searches."""
    searches = tuple(searches)
    groups: dict[str, list[TrialCost]] = defaultdict(list)
    for trial in (t for s in searches for t in s.trials):
        groups[trial.family].append(trial)
    lines = [
        CostLine(
            name=family,
            searches=len({t.sweep_id for t in trials}),
            parts=sum((_trial_parts(t) for t in trials), Parts()),
            note=f"trials: {len(trials)}, in an ensemble: {sum(t.weight > 0 for t in trials)}",
        )
        for family, trials in groups.items()
    ]
    lines.sort(key=lambda line: -line.parts.usd)
    rest = sum((s.parts for s in searches), Parts())
    idle = Parts(idle=rest.idle, unfinished=rest.unfinished)
    return (*lines, CostLine(name="none", searches=len(searches), parts=idle, note="held by no trial"))


def by_trial(searches: Iterable[SearchCost], *, most: int = 20) -> tuple[CostLine, ...]:
    """Return a line a trial, the dearest first."""
    trials = sorted((t for s in searches for t in s.trials), key=lambda t: -t.usd)
    return tuple(
        CostLine(
            name=t.id,
            searches=1,
            parts=_trial_parts(t),
            note=f"{t.sweep_id}: {t.status}, {t.seconds:.1f} s"
            + (f", weight {t.weight:.2f}" if t.weight else ""),
        )
        for t in trials[:most]
    )


VIEWS: dict[str, Callable[[tuple[SearchCost, ...]], tuple[CostLine, ...]]] = {
    "version": by_version,
    "day": by_day,
    "sweep": by_sweep,
    "family": by_family,
    "trial": by_trial,
    "workflow": by_workflow,
}


def _search_cost(
    attempts: tuple[Attempt, ...],
    sweep: Sweep | None,
    sweep_id: str,
    *,
    version: ModelVersion | None,
    cause: str | None,
) -> SearchCost:
    parts = allot(sweep, attempts)
    return SearchCost(
        sweep_id=sweep_id,
        workflow=attempts[0].workflow,
        attempts=attempts,
        parts=parts,
        trials=trial_costs(sweep, sum(a.cost_usd for a in attempts)) if sweep else (),
        version=version.version if version else "",
        status=version.status if version else ("unfinished" if sweep is None else ""),
        cause=cause or SEARCH_ONLY,
    )


def _first_versions(workflow: Workflow, names: set[str]) -> dict[str, ModelVersion]:
    """Return by sweep the version that was registered from it first: it bears the cost."""
    uri = tracking_uri(workflow)
    local = uri.removeprefix("sqlite:///")
    if not names or (local != uri and not Path(local).exists()):
        return {}  # a command that reads makes no store
    made = [v for name in names for v in Registry(name, uri).versions()]
    return {v.sweep_id: v for v in reversed(made)}


def _causes(root: str) -> dict[str, str]:
    """Return by sweep the cause of the decision that had it made."""
    found: dict[str, str] = {}
    for name in Store(root).list("journal"):
        journal = Journal(root, name)
        causes = {d.id: d.cause for d in journal.decisions()}
        for entry in journal.entries():
            if entry.stage == "searched":
                found.setdefault(str(entry.figures["sweep"]), causes.get(entry.decision_id, ""))
    return found


def _line(name: str, searches: list[SearchCost], *, note: str = "") -> CostLine:
    parts = sum((s.parts for s in searches), Parts())
    return CostLine(name=name, searches=len(searches), parts=parts, note=note)


def _story(search: SearchCost) -> str:
    came = f"version {search.version}, {search.status}" if search.version else search.status or "no version"
    return f"{format_time(search.attempts[0].started)[:16]}, {search.cause}: {came}"


def _share(parts: Parts, share: float) -> Parts:
    return Parts(**{name: share * getattr(parts, name) for name in Parts.__slots__})


def _trial_parts(trial: TrialCost) -> Parts:
    return Parts(**{trial.status: trial.usd})


def _day(attempt: Attempt) -> str:
    return format_time(attempt.started)[:10]
