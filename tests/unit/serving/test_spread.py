"""Replicas are spread over the nodes that have room for them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.serving.spread import Spread, room_for_replicas, spread

SERVE = {"Alive": True, "Labels": {"pool": "serve"}, "Resources": {"CPU": 4.0}}
NODES = [
    SERVE,
    {**SERVE, "Resources": {"CPU": 1.0}},
    {**SERVE, "Alive": False},
    {**SERVE, "Labels": {"pool": "train"}, "Resources": {}},
]


@given(most=st.integers(1, 20), room=st.lists(st.integers(1, 9) | st.just(math.inf), max_size=6))
def test_all_have_a_place_and_no_node_has_all(most: int, room: list[float]) -> None:
    """Nor is anything started meanwhile that has no place."""
    found = spread(most, room)
    if found.per_node is None:
        assert len(room) < 2 or most == 1 or sum(min(most - 1, each) for each in room) < most
        return
    places = sum(min(found.per_node, each) for each in room)
    assert found.per_node < most <= places
    assert most * (1 + found.surge_percent / 100) <= places


def test_what_does_not_fit_is_not_spread() -> None:
    """Where the nodes to come are unknown, replicas wait for room wherever it is."""
    assert spread(4, [1, 1]) == Spread()


@pytest.mark.parametrize(
    ("labels", "cpus", "room"),
    [
        ({"pool": "serve"}, 0.0, [math.inf, math.inf]),
        ({}, 0.0, [math.inf] * 3),
        ({}, 0.5, [8.0, 2.0]),
        ({"pool": "serve"}, 2.0, [2.0]),
    ],
)
def test_room_is_that_of_live_nodes_that_may_serve(
    labels: dict[str, str], cpus: float, room: list[float]
) -> None:
    """A replica without CPUs fits anywhere."""
    assert room_for_replicas(NODES, labels=labels, cpus=cpus) == room
