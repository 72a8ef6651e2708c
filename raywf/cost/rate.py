"""The settings of `cost` to a `Rate`: an own price first, else the node type's, else a general node's.

A node's price is divided over its vCPUs. Of a node with GPUs each resource alone could hold the whole: who
takes all its CPUs leaves GPUs that nobody can use. It is charged by the larger share that is taken, of its
CPUs or of its GPUs. Where one of the two has an own price, the other costs what is left of the node's.
"""

from __future__ import annotations

import dataclasses

from raywf.core.errors import SettingsError
from raywf.core.records import Rate
from raywf.core.settings import CostSettings
from raywf.cost.table import NodeType, find_node_type, load_table

_GENERAL = {"aws": "m7i.xlarge", "gcp": "n2-standard-4", "azure": "Standard_D4s_v5"}


def resolve_rate(cost: CostSettings) -> Rate:
    """Return what a CPU and a GPU cost in an hour, and where that is from.

    >>> rate = resolve_rate(CostSettings(node_type="m7i.2xlarge", region="eu-central-1"))
    >>> rate.usd_per_cpu_hour, rate.basis
    (0.060375, 'm7i.2xlarge on demand, aws eu-central-1, list price of 2026')
    >>> resolve_rate(CostSettings(usd_per_cpu_hour=0.03)).basis
    'cost.usd_per_cpu_hour'

    Raises:
        SettingsError: for a node type, region or spot price that is in no price table.
    """
    if cost.usd_per_cpu_hour is not None and (cost.usd_per_gpu_hour is not None or cost.node_type is None):
        return Rate(
            usd_per_cpu_hour=cost.usd_per_cpu_hour,
            usd_per_gpu_hour=cost.usd_per_gpu_hour or 0.0,
            basis=_own(cost),
        )
    node = resolve_node(cost)
    usd = node_usd_per_hour(cost, node)
    basis = f"{node.node_type} {_terms(cost, node)}"
    cpu, gpu = cost.usd_per_cpu_hour, cost.usd_per_gpu_hour
    if cpu is None and gpu is None:
        each_gpu = usd / node.gpus if node.gpus else 0.0
        return Rate(
            usd_per_cpu_hour=usd / node.vcpus,
            usd_per_gpu_hour=each_gpu,
            larger_share=node.gpus > 0,
            basis=basis,
        )
    if cpu is None:
        cpu = max(0.0, usd - (gpu or 0.0) * node.gpus) / node.vcpus
    else:
        gpu = max(0.0, usd - cpu * node.vcpus) / node.gpus if node.gpus else 0.0
    return Rate(usd_per_cpu_hour=cpu, usd_per_gpu_hour=gpu or 0.0, basis=f"{_own(cost)}; {basis}")


def resolve_node(cost: CostSettings) -> NodeType:
    """Return the node type that the settings name, or the cloud's general one (without a cloud: AWS').

    Raises:
        SettingsError: if no price table has it.
    """
    table = load_table(cost.prices)
    name = cost.node_type or _GENERAL.get(cost.cloud or "aws")
    if name is None:
        raise SettingsError(f"cost.cloud: {cost.cloud!r} has no general node type here; give cost.node_type")
    return find_node_type(table, name, cloud=cost.cloud, region=cost.region)


def node_usd_per_hour(cost: CostSettings, node: NodeType) -> float:
    """Return a node's price: on demand or spot, less the discount.

    Raises:
        SettingsError: if spot is wanted and the table has no spot price.
    """
    listed = node.spot_usd_per_hour if cost.spot else node.usd_per_hour
    if listed is None:
        raise SettingsError(
            f"cost.spot: no spot price of {node.node_type} {_place(node)}; a file in cost.prices adds it"
        )
    return listed * (1 - cost.discount)


def with_spot(cost: CostSettings, *, spot: bool) -> CostSettings:
    """Return the same settings on spot nodes, or on nodes on demand."""
    return dataclasses.replace(cost, spot=spot)


def _own(cost: CostSettings) -> str:
    names = ("usd_per_cpu_hour", "usd_per_gpu_hour")
    return ", ".join(f"cost.{name}" for name in names if getattr(cost, name) is not None)


def _terms(cost: CostSettings, node: NodeType) -> str:
    place = _place(node)
    parts = ["spot" if cost.spot else "on demand"]
    parts += [place] if place else []
    if node.source == "list":
        parts.append("typical price" if cost.spot else f"list price of {node.date}")
    elif node.date:
        parts.append(f"price of {node.date}")
    if cost.discount:
        parts.append(f"less {cost.discount:.0%}")
    return ", ".join(parts)


def _place(node: NodeType) -> str:
    return " ".join(name for name in (node.cloud, node.region) if name)
