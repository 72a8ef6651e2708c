"""What the cluster's nodes cost, split to what held them: parts that sum to the bill.

Nobody writes down which node a trial or a replica ran on, so what holds CPUs lies on all nodes that it may
run on, in proportion to their CPUs. Where more is held than a node has, all of it is scaled down alike. What
nobody held is idle, and so is the residue of rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from math import fsum
from typing import Literal

from raywf.cost.nodes import PricedNode

Purpose = Literal["trial", "search", "unfinished", "replica"]
Part = Literal["trial", "search", "unfinished", "replica", "system", "idle"]
PARTS: tuple[Part, ...] = ("trial", "search", "unfinished", "replica", "system", "idle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """CPUs that something held for a while: trials, the rest of a search's job, or an endpoint's replicas.

    `name` is a sweep's id, or empty. On nodes of `pool` alone where it is given; `whole` takes these up.
    """

    purpose: Purpose
    workflow: str
    start: datetime
    end: datetime
    cpus: float
    name: str = ""
    version: str = ""
    pool: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """USD of one node's day (UTC) for one part; workflow, version and name are empty where it is nobody's."""

    day: str
    node: PricedNode
    part: Part
    usd: float
    workflow: str = ""
    version: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A bill and its shares; `unplaced_cpu_h` are CPU-hours held while no node was seen for them."""

    usd: float
    shares: tuple[Share, ...]
    unplaced_cpu_h: float = 0.0


_Owner = tuple[Part, str, str, str]
_NodeDay = tuple[int, str]


def split(nodes: Sequence[PricedNode], uses: Sequence[Use]) -> Split:
    """Return what the nodes cost, split to what held them, by node and day."""
    bills: dict[_NodeDay, float] = defaultdict(float)
    taken: dict[_NodeDay, dict[_Owner, float]] = defaultdict(lambda: defaultdict(float))
    unplaced = 0.0
    for start, end, here, held in _slices(nodes, uses):
        hours, day = (end - start).total_seconds() / 3600, f"{start.astimezone(UTC):%Y-%m-%d}"
        for index in here:
            bills[index, day] += nodes[index].usd_per_hour * hours
        loads, lost = _loads(nodes, here, [uses[i] for i in held])
        unplaced += lost * hours
        for members, use, share in loads:
            owner: _Owner = (use.purpose, use.workflow, use.version, use.name)
            for index in members:
                taken[index, day][owner] += share * nodes[index].usd_per_hour * hours
    shares = tuple(s for key in sorted(bills) for s in _shares(nodes[key[0]], key[1], bills[key], taken[key]))
    return Split(usd=fsum(bills.values()), shares=shares, unplaced_cpu_h=unplaced)


def peak_cpus(nodes: Sequence[PricedNode], uses: Sequence[Use]) -> tuple[float, ...]:
    """Return the most CPUs of each node that were held at once."""
    peaks = [0.0] * len(nodes)
    for _, _, here, held in _slices(nodes, uses):
        busy: dict[int, float] = defaultdict(float)
        for members, _, share in _loads(nodes, here, [uses[i] for i in held])[0]:
            for index in members:
                busy[index] += share * nodes[index].span.cpus
        for index, cpus in busy.items():
            peaks[index] = max(peaks[index], cpus)
    return tuple(peaks)


def _slices(
    nodes: Sequence[PricedNode], uses: Sequence[Use]
) -> Iterator[tuple[datetime, datetime, list[int], list[int]]]:
    """Yield stretches of time in which the same nodes were there and the same uses held them."""
    events: dict[datetime, list[tuple[bool, bool, int]]] = defaultdict(list)  # (is a node, comes, which)
    spans = [*((True, i, n.span.start, n.span.end) for i, n in enumerate(nodes))]
    spans += [(False, i, use.start, use.end) for i, use in enumerate(uses)]
    for is_node, index, start, end in spans:
        if end > start:
            events[start].append((is_node, True, index))
            events[end].append((is_node, False, index))
    for day in _midnights(events):
        events.setdefault(day, [])
    here: set[int] = set()
    held: set[int] = set()
    last: datetime | None = None
    for at in sorted(events):
        if last is not None and (here or held):
            yield last, at, sorted(here), sorted(held)
        for is_node, comes, index in events[at]:
            group = here if is_node else held
            (group.add if comes else group.discard)(index)
        last = at


def _midnights(instants: Iterable[datetime]) -> Iterator[datetime]:
    known = list(instants)
    if not known:
        return
    day = datetime.combine(min(known).astimezone(UTC).date(), time(), UTC) + timedelta(days=1)
    while day < max(known):
        yield day
        day += timedelta(days=1)


def _loads(
    nodes: Sequence[PricedNode], here: Sequence[int], uses: Sequence[Use]
) -> tuple[list[tuple[list[int], Use, float]], float]:
    """Return which share of each of which nodes a use has, never above 1 in all; and CPUs without a node.

    Nodes of one pool bear the same share of each use, whatever their size.
    """
    pools: dict[str, list[int]] = defaultdict(list)
    for index in here:
        if nodes[index].span.cpus > 0:
            pools[nodes[index].span.pool].append(index)
    rooms = {pool: sum(nodes[i].span.cpus for i in members) for pool, members in pools.items()}
    wanted: dict[str, list[tuple[Use, float]]] = defaultdict(list)
    lost = 0.0
    for use in uses:
        fit = [pool for pool in rooms if _may_run(use, pool)]
        room = sum(rooms[pool] for pool in fit)
        if not room:
            lost += use.cpus
        for pool in fit:
            wanted[pool].append((use, 1.0 if use.whole else use.cpus / room))
    found = []
    for pool, loads in wanted.items():
        scale = max(1.0, sum(load for _, load in loads))
        found += [(pools[pool], use, load / scale) for use, load in loads if load > 0]
    return found, lost


def _may_run(use: Use, pool: str) -> bool:
    if use.whole:
        return pool == use.pool
    return not use.pool or pool in {"", use.pool}


def _shares(node: PricedNode, day: str, bill: float, taken: dict[_Owner, float]) -> Iterator[Share]:
    """Yield a node-day's shares and what is left of it; a sum that is too large by rounding is cut."""
    left = bill
    for (part, workflow, version, name), usd in sorted(taken.items()):
        usd = min(usd, left)
        left = max(0.0, left - usd)
        yield Share(day=day, node=node, part=part, usd=usd, workflow=workflow, version=version, name=name)
    rest: Part = "idle" if node.span.cpus else "system"
    yield Share(day=day, node=node, part=rest, usd=left)
