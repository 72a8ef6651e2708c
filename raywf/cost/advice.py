"""What would make the cluster cheaper, in figures of its own history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil

from raywf.core.settings import CostSettings
from raywf.cost.money import format_usd
from raywf.cost.nodes import PricedNode, find_row
from raywf.cost.rate import node_usd_per_hour
from raywf.cost.split import Share, Use, peak_cpus
from raywf.cost.table import NodeType, load_table

HOURS_A_MONTH = 730
LEAST_USD, LEAST_SHARE = 1.0, 0.05  # a month, and of the month's bill: below them nobody is bothered
QUIET, BASE = 0.05, 0.9  # of the peak hour's requests; of the time
_DAY_H = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to do, what it saves a month (None where no price was given for it) and what that assumes."""

    what: str
    saving_usd: float | None
    figure: str
    assumption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What happened: nodes, what held them, the bill's shares, predictions by the hour (None: not counted).

    `replicas` serve at least and `most_replicas` at most, `largest_cpus` is what one trial or replica holds,
    `no_traffic` why predictions were not counted.
    """

    nodes: Sequence[PricedNode]
    uses: Sequence[Use]
    shares: Sequence[Share]
    end: datetime
    replicas: int = 1
    most_replicas: int = 1
    largest_cpus: float = 1.0
    traffic: Mapping[datetime, int] | None = None
    no_traffic: str = ""

    @property
    def hours(self) -> float:
        """How long the history is."""
        start = min((node.span.start for node in self.nodes), default=self.end)
        return (self.end - start).total_seconds() / 3600

    @property
    def peak_uses(self) -> tuple[Use, ...]:
        """What held nodes, had as many replicas served as may: how many did is not in the history."""
        more = max(1.0, self.most_replicas / self.replicas)
        return tuple(replace(u, cpus=u.cpus * more) if u.purpose == "replica" else u for u in self.uses)

    @property
    def to_month(self) -> float:
        """What to multiply by to come from the history to a month."""
        return HOURS_A_MONTH / self.hours

    @property
    def month_usd(self) -> float:
        """The bill of a month like this."""
        return sum(node.usd for node in self.nodes) * self.to_month


def advise(past: Past, cost: CostSettings) -> tuple[tuple[Advice, ...], tuple[str, ...]]:
    """Return what would save something, the most first; and what could not be said, with the reason."""
    if past.hours < _DAY_H:
        return (), (f"no advice: the nodes' history is of {past.hours:.1f} hours, less than a day",)
    table = load_table(cost.prices)
    spot, no_spot = _spot(past, cost, table)
    quiet, no_quiet = _quiet(past)
    found = [*spot, *_smaller(past, cost, table), *quiet, *_reserve(past, cost.reserved_discount)]
    worth = [each for each in found if _is_worth(each, past)]
    worth.sort(key=lambda each: -(each.saving_usd or 0.0))
    return tuple(worth), tuple(reason for reason in (no_spot, no_quiet) if reason)


def _is_worth(each: Advice, past: Past) -> bool:
    return each.saving_usd is None or each.saving_usd >= max(LEAST_USD, LEAST_SHARE * past.month_usd)


def _spot(past: Past, cost: CostSettings, table: tuple[NodeType, ...]) -> tuple[list[Advice], str]:
    """Advise spot nodes for the train pool."""
    train = [node for node in past.nodes if node.span.pool == "train" and not node.span.spot]
    if not any(node.span.pool for node in past.nodes):
        return [], "spot: nodes have no pools (cluster.pools), so that trials and replicas share them"
    hours = saving = 0.0
    for node in train:
        row = find_row(table, node.node_type, cost, node.span.region) if node.node_type else None
        if row is not None and row.spot_usd_per_hour is not None:
            saving += (node.usd_per_hour - node_usd_per_hour(replace(cost, spot=True), row)) * node.hours
            hours += node.hours
    advice = Advice(
        what="spot instead of on-demand nodes for the train pool",
        saving_usd=saving * past.to_month,
        figure=f"{hours * past.to_month:.0f} node-hours a month on demand",
        assumption="the price table's typical spot price; a lost node costs the folds that ran on it",
    )
    return [advice], ""


def _smaller(past: Past, cost: CostSettings, table: tuple[NodeType, ...]) -> list[Advice]:
    """Advise a smaller type of the same family, where no node ever held more CPUs than that has."""
    peaks = peak_cpus(past.nodes, past.peak_uses)
    groups: dict[tuple[str, str, str, bool], list[int]] = defaultdict(list)
    for index, node in enumerate(past.nodes):
        if node.node_type and node.span.cpus:
            span = node.span
            groups[node.node_type, span.pool, span.region, span.spot].append(index)
    found = []
    for (name, pool, region, spot), members in sorted(groups.items()):
        row = find_row(table, name, cost, region)
        peak = max(peaks[i] for i in members)
        less = _smallest(table, row, max(peak, past.largest_cpus)) if row else None
        if row is None or less is None or (spot and less.spot_usd_per_hour is None):
            continue
        price = node_usd_per_hour(replace(cost, spot=spot), less)
        saving = sum((past.nodes[i].usd_per_hour - price) * past.nodes[i].hours for i in members)
        where = f" in pool {pool}" if pool else ""
        found.append(
            Advice(
                what=f"{less.node_type} instead of {name}{where}",
                saving_usd=saving * past.to_month,
                figure=f"at most {peak:.1f} of {row.vcpus} CPUs of a node were held at once",
                assumption=f"work spreads evenly over nodes and time; whether {less.memory_gib:g} GiB of "
                f"memory are enough, in place of {row.memory_gib:g}, is unknown",
            )
        )
    return found


def _smallest(table: Iterable[NodeType], row: NodeType, cpus: float) -> NodeType | None:
    """Return the smallest type of a row's family and place that has so many CPUs; None if none is smaller."""
    fits = [
        each
        for each in table
        if (each.cloud, each.region, each.gpus) == (row.cloud, row.region, row.gpus)
        and _family(each) == _family(row)
        and ceil(cpus) <= each.vcpus < row.vcpus
        and each.usd_per_hour < row.usd_per_hour
    ]
    return min(fits, key=lambda each: each.vcpus, default=None)


def _family(row: NodeType) -> tuple[str, float]:
    """Return what types of all sizes of a family share: the name without its size, and memory a CPU."""
    name = row.node_type
    head = name.partition(".")[0] if "." in name else name.rstrip("0123456789")
    if "_" in name:  # Azure: Standard_D4s_v5
        head = "".join(c for c in name.partition("_v")[0] if not c.isdigit()) + name.partition("_v")[2]
    return head, round(row.memory_gib / row.vcpus, 1)


def _quiet(past: Past) -> tuple[list[Advice], str]:
    """Advise fewer replicas in the hours of the day in which nearly nobody asks."""
    if past.traffic is None:
        return [], f"quiet hours: {past.no_traffic or 'predictions were not counted'}"
    if not past.traffic:
        return [], "quiet hours: the log has no predictions of this time"
    by_hour: dict[int, int] = defaultdict(int)
    for hour, count in past.traffic.items():
        by_hour[hour.astimezone(UTC).hour] += count
    peak = max(by_hour.values())
    quiet = [hour for hour in range(_DAY_H) if by_hour[hour] < QUIET * peak]
    usd = sum(share.usd for share in past.shares if share.part == "replica") * past.to_month
    if past.replicas < 2 or not quiet:
        return [], ""
    advice = Advice(
        what="one replica in quiet hours (serving.replicas: 1, max_replicas as now)",
        saving_usd=usd * len(quiet) / _DAY_H * (1 - 1 / past.replicas),
        figure=f"{len(quiet)} hours of the day (UTC {_ranges(quiet)}) have less than {QUIET:.0%} of the "
        f"peak's requests; replicas cost {format_usd(usd)} a month",
        assumption="days are alike, and nodes go back when their replicas do",
    )
    return [advice], ""


def _ranges(hours: Sequence[int]) -> str:
    """Return hours as ranges that end with the hour's end: ``0-6, 23-24``."""
    ranges: list[list[int]] = []
    for hour in hours:
        if ranges and ranges[-1][1] == hour:
            ranges[-1][1] = hour + 1
        else:
            ranges.append([hour, hour + 1])
    return ", ".join(f"{first}-{last}" for first, last in ranges)


def _reserve(past: Past, discount: float | None) -> list[Advice]:
    """Advise to reserve as many nodes of a type as were there nearly all the time."""
    groups: dict[str, list[PricedNode]] = defaultdict(list)
    for node in past.nodes:
        if node.node_type and not node.span.spot:
            groups[node.node_type].append(node)
    found = []
    for name, members in sorted(groups.items()):
        present = [share for share in _presence(members, past) if share >= BASE]
        usd = members[0].usd_per_hour * HOURS_A_MONTH
        if not present or usd * len(present) < max(LEAST_USD, LEAST_SHARE * past.month_usd):
            continue
        count = len(present)
        saving = None if discount is None else sum(usd * (share - (1 - discount)) for share in present)
        terms = (
            ""
            if discount is None
            else f"{discount:.0%} off (cost.reserved_discount), paid around the clock; "
        )
        found.append(
            Advice(
                what=f"reserve {count} x {name}",
                saving_usd=saving,
                figure=f"{count} of them there for at least {min(present):.0%} of the time, "
                f"{count * HOURS_A_MONTH} hours and {format_usd(usd * count)} a month on demand",
                assumption=f"{terms}the next months are like these {past.hours / _DAY_H:.1f} days"
                + ("; give cost.reserved_discount for what it saves" if discount is None else ""),
            )
        )
    return found


def _presence(nodes: Sequence[PricedNode], past: Past) -> list[float]:
    """Return for how much of the time there was at least one of the nodes, at least two, and so on."""
    steps: dict[datetime, int] = defaultdict(int)
    for node in nodes:
        steps[node.span.start] += 1
        steps[node.span.end] -= 1
    there, times = 0, [timedelta(0)] * len(nodes)
    for at, after in pairwise(sorted(steps)):
        there += steps[at]
        for level in range(there):
            times[level] += after - at
    return [time.total_seconds() / 3600 / past.hours for time in times]
