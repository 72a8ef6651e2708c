"""Tells Ray that a machine is taken back, so that nothing more begins there and its loss is no failure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ray import NodeID
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub does not tell all
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError
from ray.util import get_node_ip_address

from raywf.core.errors import JobError

_ANSWER_S = 10.0
_ALIVE = 0  # ray.rpc.GcsNodeInfo.GcsNodeState


def nodes_here(address: str) -> tuple[str, ...]:
    """Return the ids of the live nodes of a cluster that are on this machine; one, as clusters are made.

    Raises:
        JobError: if the cluster at that address (host:port) does not answer.
    """
    here = {get_node_ip_address(), get_node_ip_address(address)}  # by either a node finds its own address
    try:
        found = GcsClient(address=address).get_all_node_info(timeout=_ANSWER_S, state_filter=_ALIVE)
    except (RayError, OSError, RuntimeError) as err:
        raise JobError(f"the cluster at {address} does not tell its nodes: {err}") from err
    return tuple(NodeID(info.node_id).hex() for info in found.values() if info.node_manager_address in here)


def drain(address: str, nodes: Sequence[str], *, by: datetime, reason: str) -> None:
    """Let nothing more begin on nodes that are taken back; what ends after `by` counts as taken back.

    The nodes' work goes on until then and beyond, until the machine is gone. Doing it again changes nothing.

    Raises:
        JobError: if the cluster does not answer, or refuses.
    """
    try:
        client = GcsClient(address=address)
        for node in nodes:
            accepted, why = client.drain_node(
                node,
                autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION,
                reason,
                round(1000 * by.timestamp()),
                timeout=_ANSWER_S,
            )
            if not accepted:
                raise JobError(f"node {node} could not be drained: {why}")
    except (RayError, OSError, RuntimeError) as err:
        raise JobError(f"the cluster at {address} could not be told: {err}") from err
