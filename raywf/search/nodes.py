"""What the nodes offer on which a search may run."""

from __future__ import annotations

from collections.abc import Mapping

import ray

from raywf.core.pools import selector
from raywf.core.settings import Workflow


def training_nodes(workflow: Workflow) -> dict[str, str]:
    """Return the labels of the nodes that trials and last fits may run on; all may where there are none."""
    return selector("train", labelled=workflow.cluster.pools)


def offered(nodes: Mapping[str, str], kind: str) -> float:
    """Return how much of a resource the live nodes with these labels have.

    Of a cluster that grows from none it is 0.
    """
    if not nodes:
        return float(ray.cluster_resources().get(kind, 0))
    found = [node for node in ray.nodes() if node["Alive"] and nodes.items() <= node["Labels"].items()]
    return sum(float(node["Resources"].get(kind, 0)) for node in found)
