"""How replicas are spread over nodes, so that the loss of one node does not take all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The most replicas that a node may have (None: any number), and how many more there may be meanwhile.

    `surge_percent` of the replicas are started before others are stopped, where they are replaced: what has
    no place beside them would be waited for in vain.
    """

    per_node: int | None = None
    surge_percent: int = 100


def spread(most: int, room: Sequence[float]) -> Spread:
    """Return how to spread at most so many replicas over nodes that have room for so many each.

    They are shared out evenly. On one node, or where they would not all have room by now, nothing is said.

    >>> spread(2, [math.inf, math.inf])
    Spread(per_node=1, surge_percent=0)
    >>> spread(2, [math.inf] * 3)
    Spread(per_node=1, surge_percent=50)
    >>> spread(2, [math.inf])
    Spread(per_node=None, surge_percent=100)
    """
    if len(room) < 2:
        return Spread()
    for per_node in range(math.ceil(most / len(room)), most):
        places = sum(min(per_node, each) for each in room)
        if places >= most:
            return Spread(per_node, min(100, int(100 * (places - most) / most)))
    return Spread()


def room_for_replicas(
    nodes: Iterable[Mapping[str, Any]], *, labels: Mapping[str, str], cpus: float
) -> list[float]:
    """Return how many replicas each live node with these labels has room for, by Ray's list of nodes."""
    alive = (node for node in nodes if node["Alive"] and labels.items() <= node["Labels"].items())
    room = (float(node["Resources"].get("CPU", 0.0)) // cpus if cpus else math.inf for node in alive)
    return [each for each in room if each >= 1]
