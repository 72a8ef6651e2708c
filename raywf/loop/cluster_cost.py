"""What the cluster's nodes cost, and to whom: node history, ledgers and the price table read together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import fsum

from raywf.core.records import ReplicaSpan
from raywf.core.settings import Workflow
from raywf.cost.nodes import PricedNode, price_nodes
from raywf.cost.split import PARTS, Purpose, Share, Split, Use, split
from raywf.loop.node_history import read_history
from raywf.loop.spending import SearchCost, read_spending

_POOLS = ("system", "serve", "train")
_NOBODY = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCost:
    """The bill of a stretch of time: nodes, what held them, and the bill split to that."""

    start: datetime
    end: datetime
    nodes: tuple[PricedNode, ...]
    uses: tuple[Use, ...]
    split: Split

    @property
    def days(self) -> float:
        """How many days the nodes' history covers, from the first that was seen to the end."""
        return (self.end - self.nodes[0].span.start) / timedelta(days=1) if self.nodes else 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed of prices, each once."""
        return tuple(dict.fromkeys(node.note for node in self.nodes if node.note))


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """Money under one heading; `parts` sums to `usd`. Nodes and hours are 0 where they are not counted."""

    name: str
    usd: float
    parts: dict[str, float]
    nodes: int = 0
    hours: float = 0.0


def read_cluster_cost(
    workflow: Workflow, start: datetime, end: datetime, *, types: Mapping[str, str] | None = None
) -> ClusterCost:
    """Return what the nodes cost between two instants that any workflow of the store saw.

    `types` has the machine types of pools, for nodes that do not tell theirs; without it the settings do.

    Raises:
        SettingsError: if the settings' own price cannot be resolved.
        RegistryError: if the registry cannot be reached.
    """
    history = read_history(workflow.stores.root, start, end)
    own = {pool: getattr(workflow.cluster, pool).node_type for pool in _POOLS}
    named = own if types is None else types
    nodes = price_nodes(history.nodes, workflow.cost, {k: v for k, v in named.items() if v})
    pool = "train" if workflow.cluster.pools else ""
    searches = read_spending(workflow) if nodes else ()
    uses = (*search_uses(searches, pool=pool), *replica_uses(history.replicas))
    within = tuple(use for use in uses if use.start < end and use.end > start)
    cut = tuple(_cut(use, start, end) for use in within)
    return ClusterCost(start=start, end=end, nodes=nodes, uses=cut, split=split(nodes, cut))


def search_uses(searches: Iterable[SearchCost], *, pool: str = "") -> Iterator[Use]:
    """Yield what each attempt of each search held: its trials, and its job besides."""
    for search in searches:
        whole = search.parts
        trials = (whole.done + whole.stopped + whole.failed) / whole.usd if whole.usd else 0.0
        rest: Purpose = "unfinished" if search.status == "unfinished" else "search"
        for attempt in search.attempts:
            if attempt.wall_s <= 0:
                continue
            cpus, end = attempt.cpu_s / attempt.wall_s, attempt.started + timedelta(seconds=attempt.wall_s)
            shares: tuple[tuple[Purpose, float], ...] = (("trial", trials), (rest, 1 - trials))
            for purpose, share in shares:
                if share > 0:
                    yield Use(
                        purpose=purpose,
                        workflow=search.workflow,
                        start=attempt.started,
                        end=end,
                        cpus=cpus * share,
                        name=search.sweep_id,
                        version=search.version,
                        pool=pool,
                    )


def replica_uses(spans: Iterable[ReplicaSpan]) -> Iterator[Use]:
    """Yield what each endpoint's replicas held."""
    for span in spans:
        if span.cpus or span.whole_pool:
            yield Use(
                purpose="replica",
                workflow=span.workflow,
                start=span.start,
                end=span.end,
                cpus=span.cpus,
                pool=span.pool,
                whole=span.whole_pool,
            )


def by_node_type(found: ClusterCost) -> tuple[BillLine, ...]:
    """Return a line a node type and market, the dearest first."""
    groups: dict[str, list[PricedNode]] = defaultdict(list)
    for node in found.nodes:
        groups[_kind(node)].append(node)
    lines = (
        replace(line, nodes=len(groups[line.name]), hours=fsum(n.hours for n in groups[line.name]))
        for line in _lines(found.split.shares, lambda share: _kind(share.node))
    )
    return tuple(sorted(lines, key=lambda line: -line.usd))


def by_day(found: ClusterCost) -> tuple[BillLine, ...]:
    """Return a line a day, UTC."""
    return _by_name(_lines(found.split.shares, lambda share: share.day))


def by_workflow(found: ClusterCost) -> tuple[BillLine, ...]:
    """Return a line a workflow, and one for what is nobody's."""
    return _by_name(_lines(found.split.shares, lambda share: share.workflow or _NOBODY))


def by_version(found: ClusterCost) -> tuple[BillLine, ...]:
    """Return a line a model version of a workflow; ``-`` is what no version came of, replicas among it."""

    def named(share: Share) -> str:
        return f"{share.workflow} {share.version or '-'}" if share.workflow else _NOBODY

    return _by_name(_lines(found.split.shares, named))


VIEWS: dict[str, Callable[[ClusterCost], tuple[BillLine, ...]]] = {
    "day": by_day,
    "workflow": by_workflow,
    "version": by_version,
}


def _kind(node: PricedNode) -> str:
    return f"{node.kind} {'spot' if node.span.spot else 'on demand'}"


def _by_name(lines: Iterable[BillLine]) -> tuple[BillLine, ...]:
    return tuple(sorted(lines, key=lambda line: (line.name == _NOBODY, line.name)))


def _lines(shares: Iterable[Share], name_of: Callable[[Share], str]) -> Iterator[BillLine]:
    groups: dict[str, list[Share]] = defaultdict(list)
    for share in shares:
        groups[name_of(share)].append(share)
    for name, members in groups.items():
        parts = {str(part): fsum(s.usd for s in members if s.part == part) for part in PARTS}
        yield BillLine(name=name, usd=fsum(parts.values()), parts=parts)


def _cut(use: Use, start: datetime, end: datetime) -> Use:
    return replace(use, start=max(use.start, start), end=min(use.end, end))
