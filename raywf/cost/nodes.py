"""Node spans and a price table to what each node costs in an hour, and where that is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from raywf.core.errors import SettingsError
from raywf.core.records import NodeSpan
from raywf.core.settings import CostSettings
from raywf.cost.rate import node_usd_per_hour, resolve_rate
from raywf.cost.table import NodeType, find_node_type, load_table


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedNode:
    """A node and its price; `node_type` is empty where it is priced by its CPUs and GPUs.

    `note` says what was assumed where the node's own labels do not tell its price.
    """

    span: NodeSpan
    node_type: str
    usd_per_hour: float
    note: str = ""

    @property
    def hours(self) -> float:
        """How long it was there."""
        return (self.span.end - self.span.start).total_seconds() / 3600

    @property
    def usd(self) -> float:
        """What it cost."""
        return self.usd_per_hour * self.hours

    @property
    def kind(self) -> str:
        """Its type as people call it."""
        return self.node_type or f"{self.span.cpus:g} CPUs"


def price_nodes(
    spans: Iterable[NodeSpan], cost: CostSettings, types: Mapping[str, str] | None = None
) -> tuple[PricedNode, ...]:
    """Return each span with its price, by the node's own type and market.

    `types` has the machine types of pools, for nodes whose labels do not tell theirs. A type that no price
    table has, or none at all, is priced by CPUs and GPUs as searches are (`resolve_rate`).

    Raises:
        SettingsError: if the settings' own price cannot be resolved.
    """
    table = load_table(cost.prices)
    return tuple(_priced(span, cost, table, types or {}) for span in spans)


def _priced(
    span: NodeSpan, cost: CostSettings, table: tuple[NodeType, ...], types: Mapping[str, str]
) -> PricedNode:
    name = span.node_type or types.get(span.pool, "")
    assumed = "" if span.node_type or not name else f"{name}: by the settings of pool {span.pool}"
    row = find_row(table, name, cost, span.region) if name and cost.usd_per_cpu_hour is None else None
    if row is None:
        return _by_resources(span, cost, name)
    spot = span.spot and row.spot_usd_per_hour is not None
    if span.spot and not spot:
        assumed = f"{name}: no spot price known, priced on demand"
    usd = node_usd_per_hour(replace(cost, spot=spot), row)
    return PricedNode(span=span, node_type=name, usd_per_hour=usd, note=assumed)


def find_row(
    table: tuple[NodeType, ...], node_type: str, cost: CostSettings, region: str = ""
) -> NodeType | None:
    """Return a type's row: in a node's region or the settings', else in any; None without one."""
    for place in (region or cost.region, None):
        try:
            return find_node_type(table, node_type, cloud=cost.cloud, region=place)
        except SettingsError:
            continue
    return None


def _by_resources(span: NodeSpan, cost: CostSettings, name: str) -> PricedNode:
    rate = resolve_rate(replace(cost, spot=span.spot and cost.usd_per_cpu_hour is None))
    usd = rate.usd(cpu_s=3600 * span.cpus, gpu_s=3600 * span.gpus)
    told = f"{name}: no price in the table" if name else "nodes of unknown type"
    if cost.usd_per_cpu_hour is not None:
        told = ""
    elif not span.cpus and not span.gpus:
        told = f"{name or span.pool or 'a node'}: no CPUs and no price in the table; it counts nothing"
    else:
        told += f", priced by CPU as {rate.basis}"
    return PricedNode(span=span, node_type=name, usd_per_hour=usd, note=told)
