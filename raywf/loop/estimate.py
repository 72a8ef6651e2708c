"""What one search of a workflow will cost at its budget, on this machine or on nodes of a type."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

from raywf.core.errors import SettingsError
from raywf.core.settings import Workflow
from raywf.cost.rate import resolve_node, resolve_rate, with_spot
from raywf.loop.local import cluster_address
from raywf.search.budget import allowed_seconds, count_slots

_MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A search at one price: `usd` for the CPUs that it occupies, `nodes_usd` for the nodes whole, if named.

    `month_usd` is for 30 days of searches every `retrain.every`, where that is set.
    """

    terms: str
    basis: str
    usd_per_hour: float
    seconds: float
    usd: float
    nodes_usd: float | None
    month_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The most that one search costs: `cpus` it occupies of `cluster_cpus`."""

    workflow: str
    nodes: int | None
    node_type: str
    cpus: int
    cluster_cpus: int
    offers: tuple[Offer, ...]


def estimate(workflow: Workflow, *, nodes: int | None = None) -> Estimate:
    """Return what a search costs that takes its whole budget; starts and asks no cluster.

    Without `nodes` it is of the CPUs of this machine, or of `cluster.cpus`.

    Raises:
        SettingsError: if a price is unknown, or the cluster is elsewhere and `nodes` is not given.
    """
    if nodes is None and cluster_address(workflow) is not None:
        raise SettingsError(
            f"the cluster is at {cluster_address(workflow)!r}; say of how many nodes it is: --nodes N"
        )
    node = resolve_node(workflow.cost) if nodes is not None else None
    cluster = nodes * node.vcpus if nodes and node else workflow.cluster.cpus or os.cpu_count() or 1
    cpus = count_slots(workflow.search, cpus=cluster) * workflow.search.slot_cpus
    whole = cluster if node is not None else None
    return Estimate(
        workflow=workflow.name,
        nodes=nodes,
        node_type=node.node_type if node else "",
        cpus=cpus,
        cluster_cpus=cluster,
        offers=tuple(_offer(workflow, spot=spot, cpus=cpus, whole=whole) for spot in _terms(workflow)),
    )


def _terms(workflow: Workflow) -> tuple[bool, ...]:
    """Return on demand and spot, the settings' own first; prices of one's own are one offer."""
    cost = workflow.cost
    if cost.usd_per_cpu_hour is not None:
        return (cost.spot,)
    both = (cost.spot, not cost.spot)
    return both if resolve_node(cost).spot_usd_per_hour is not None else (cost.spot,)


def _offer(workflow: Workflow, *, spot: bool, cpus: int, whole: int | None) -> Offer:
    rate = resolve_rate(with_spot(workflow.cost, spot=spot))
    seconds = allowed_seconds(workflow.search, rate, cpus=cpus)
    usd = rate.usd(cpu_s=seconds * cpus)
    every = workflow.retrain.every
    return Offer(
        terms="own price" if workflow.cost.usd_per_cpu_hour else "spot" if spot else "on demand",
        basis=rate.basis,
        usd_per_hour=rate.usd(cpu_s=3600 * cpus),
        seconds=seconds,
        usd=usd,
        nodes_usd=rate.usd(cpu_s=seconds * whole) if whole is not None else None,
        month_usd=usd * (_MONTH / every) if every else None,
    )
