"""A layout and a price table to what the cluster costs, from its least nodes to its most."""

from __future__ import annotations

from dataclasses import dataclass, replace

from raywf.cluster.layout import Layout, NodeLine
from raywf.core.errors import SettingsError
from raywf.core.settings import CostSettings
from raywf.cost.rate import node_usd_per_hour, resolve_rate
from raywf.cost.table import find_node_type, load_table

HOURS_A_MONTH = 730
_PRICED = {"aws", "gcp", "azure"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePrice:
    """What one node of a line costs in an hour, each way; None where no price is known."""

    on_demand: float | None
    spot: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """USD in an hour: the least nodes, the most as the file buys them, and the most were all on demand.

    `missing` has a line for each price that is not known; what it would add is not in the sums.
    """

    prices: tuple[NodePrice, ...]
    least: float
    most: float
    most_on_demand: float
    missing: tuple[str, ...]
    basis: str


def reckon(layout: Layout, cost: CostSettings) -> Budget:
    """Return the costs of a cluster by the settings of `cost`; on premise they are those of `cost` by CPU.

    The most is the dearest that `max_workers` allows. Disks, traffic and addresses are not in it.
    """
    priced = layout.cloud in _PRICED
    looked_up = [_of_node(n, layout, cost) if priced else _of_cpus(n, cost) for n in layout.nodes]
    prices = [price for price, _ in looked_up]
    lines = list(zip(layout.nodes, prices, strict=True))
    as_bought = [(n, (p.spot if n.spot else p.on_demand) or 0.0) for n, p in lines]
    on_demand = [(n, p.on_demand or 0.0) for n, p in lines]
    basis = f"the price table for {layout.cloud} {layout.region}" if priced else resolve_rate(cost).basis
    return Budget(
        prices=tuple(prices),
        least=sum(usd * node.least for node, usd in as_bought),
        most=_dearest(as_bought, layout.max_workers),
        most_on_demand=_dearest(on_demand, layout.max_workers),
        missing=tuple(dict.fromkeys(problem for _, problem in looked_up if problem)),
        basis=basis,
    )


def _dearest(lines: list[tuple[NodeLine, float]], max_workers: int) -> float:
    """Return the head and the dearest workers that may stand at once; the least nodes stand in any case."""
    total = sum(usd * node.least for node, usd in lines)
    room = max_workers - sum(node.least for node, _ in lines if not node.is_head)
    for node, usd in sorted(lines, key=lambda line: -line[1]):
        more = 0 if node.is_head else min(room, node.limit - node.least)
        room, total = room - max(0, more), total + usd * max(0, more)
    return total


def _of_node(node: NodeLine, layout: Layout, cost: CostSettings) -> tuple[NodePrice, str]:
    try:
        row = find_node_type(
            load_table(cost.prices), node.node_type, cloud=layout.cloud, region=layout.region or None
        )
    except SettingsError as err:
        where = f" in {layout.region}" if layout.region else ""
        told = f"no price of {node.node_type!r}{where} (type {node.name}): add a row to a file of columns "
        told += f"node_type, vcpus, usd_per_hour, spot_usd_per_hour and name it as cost.prices; {err}"
        return NodePrice(on_demand=None, spot=None), told
    on_demand = node_usd_per_hour(replace(cost, spot=False), row)
    if row.spot_usd_per_hour is not None:
        return NodePrice(on_demand=on_demand, spot=node_usd_per_hour(replace(cost, spot=True), row)), ""
    told = ""
    if node.spot:
        told = f"no spot price of {node.node_type!r} (type {node.name}): a row in cost.prices adds it"
    return NodePrice(on_demand=on_demand, spot=None), told


def _of_cpus(node: NodeLine, cost: CostSettings) -> tuple[NodePrice, str]:
    """Price a pod or a machine at hand by its CPUs; a head's pod has some, though none for tasks."""
    sized = node.node_type.removeprefix("pod of ").partition(" ")[0]
    cpus = float(sized) if node.node_type.startswith("pod of ") else node.cpus
    if not cpus:
        told = f"how many CPUs a node of {node.name} has is not in the file; its price is left out"
        return NodePrice(on_demand=None, spot=None), told
    on_demand = cpus * resolve_rate(replace(cost, spot=False)).usd_per_cpu_hour
    spot = None
    if node.spot and cost.usd_per_cpu_hour is None:
        spot = cpus * resolve_rate(replace(cost, spot=True)).usd_per_cpu_hour
    return NodePrice(on_demand=on_demand, spot=spot if spot is not None else on_demand), ""
