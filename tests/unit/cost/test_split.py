"""The cluster's bill split to what held its nodes: the parts sum to it, whatever holds them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.records import NodeSpan
from raywf.cost.nodes import PricedNode
from raywf.cost.split import PARTS, Part, Purpose, Split, Use, split

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POOLS = st.sampled_from(["", "train", "serve"])
MINUTES = st.integers(0, 4000)


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def node(start: float, end: float, *, cpus: float = 4, usd: float = 1.0, pool: str = "") -> PricedNode:
    """Return a node of a price, there between hours after noon."""
    span = NodeSpan(node_id=f"{start}-{end}", start=at(start), end=at(end), cpus=cpus, pool=pool)
    return PricedNode(span=span, node_type="t", usd_per_hour=usd)


def use(start: float, end: float, cpus: float, purpose: Purpose = "trial", **given: str | bool) -> Use:
    return Use(purpose=purpose, workflow="w", start=at(start), end=at(end), cpus=cpus, **given)  # type: ignore[arg-type]


def parts(found: Split) -> dict[Part, float]:
    sums = {part: fsum(s.usd for s in found.shares if s.part == part) for part in PARTS}
    return {part: usd for part, usd in sums.items() if usd}


NODES = st.builds(
    lambda start, length, cpus, usd, pool: node(
        start / 60, (start + length) / 60, cpus=cpus, usd=usd, pool=pool
    ),
    MINUTES,
    MINUTES,
    st.sampled_from([0.0, 1.0, 3.0, 4.0, 16.0]),
    st.floats(0, 30, allow_subnormal=False),
    POOLS,
)
USES = st.builds(
    lambda start, length, cpus, purpose, pool, whole: use(
        start / 60, (start + length) / 60, cpus, purpose, pool=pool, whole=whole
    ),
    MINUTES,
    MINUTES,
    st.floats(0, 50, allow_subnormal=False),
    st.sampled_from(["trial", "search", "unfinished", "replica"]),
    POOLS,
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(nodes=st.lists(NODES, max_size=6), uses=st.lists(USES, max_size=8))
def test_the_parts_sum_to_the_bill(nodes: list[PricedNode], uses: list[Use]) -> None:
    """To a billionth, none of them negative; the bill is each node's hours at its price."""
    found = split(nodes, uses)
    assert found.usd == pytest.approx(fsum(n.usd for n in nodes), rel=1e-9, abs=1e-12)
    assert fsum(s.usd for s in found.shares) == pytest.approx(found.usd, rel=1e-9, abs=1e-12)
    assert all(s.usd >= 0 for s in found.shares)


@settings(max_examples=100, deadline=None)
@given(nodes=st.lists(NODES, min_size=1, max_size=4), uses=st.lists(USES, max_size=8))
def test_no_node_gives_more_than_it_has(nodes: list[PricedNode], uses: list[Use]) -> None:
    """However much holds it at once; and the parts of a node's day sum to that day."""
    by_node = {id(n): 0.0 for n in nodes}
    for share in split(nodes, uses).shares:
        if share.part not in {"idle", "system"}:
            by_node[id(share.node)] += share.usd
    for each in nodes:
        assert by_node[id(each)] <= each.usd * (1 + 1e-9) + 1e-12


@given(uses=st.lists(USES, max_size=5))
def test_nobody_gets_more_than_was_held(uses: list[Use]) -> None:
    """Of a node that is there all the time, priced a dollar a CPU-hour: at most the CPU-hours."""
    big = node(0, 200, cpus=1000, usd=1000.0)
    held = fsum(
        u.cpus * (u.end - u.start).total_seconds() / 3600 for u in uses if not (u.whole and u.pool == "")
    )
    if not any(u.whole and u.pool == "" for u in uses):
        spent = fsum(s.usd for s in split([big], uses).shares if s.part not in {"idle", "system"})
        assert spent <= held * (1 + 1e-9) + 1e-9


def test_what_nobody_holds_is_idle() -> None:
    """Four CPUs for ten hours at a dollar: two are held for five of them, one by a replica all along."""
    found = split([node(0, 10)], [use(0, 5, 2), use(0, 10, 1, "replica")])
    assert parts(found) == pytest.approx({"trial": 2.5, "replica": 2.5, "idle": 5.0})


def test_too_much_is_scaled_down_alike() -> None:
    """Two attempts that overlap on a node of four CPUs: six and two of them are held, as three and one."""
    found = split([node(0, 1)], [use(0, 1, 6), use(0, 1, 2, "unfinished")])
    assert parts(found) == pytest.approx({"trial": 0.75, "unfinished": 0.25})


def test_a_pool_pays_for_its_own_work() -> None:
    """A trial lies on nodes to train, replicas have theirs to themselves; a head is the system's."""
    nodes = [node(0, 2, pool="train"), node(0, 2, pool="serve", usd=3.0), node(0, 2, cpus=0, usd=0.5)]
    uses = [use(0, 2, 4, pool="train"), use(0, 2, 0, "replica", pool="serve", whole=True)]
    assert parts(split(nodes, uses)) == pytest.approx({"trial": 2.0, "replica": 6.0, "system": 1.0})


def test_larger_nodes_bear_more() -> None:
    """What holds three CPUs of twelve holds a quarter of each node."""
    found = split([node(0, 1, cpus=4, usd=1.0), node(0, 1, cpus=8, usd=4.0)], [use(0, 1, 3)])
    assert parts(found) == pytest.approx({"trial": 1.25, "idle": 3.75})


def test_days_end_at_midnight() -> None:
    """Twelve hours before it and six after, UTC."""
    days: dict[str, float] = {}
    for share in split([node(0, 18)], [use(6, 18, 4)]).shares:
        days[share.day] = days.get(share.day, 0.0) + share.usd
    assert days == pytest.approx({"2026-03-01": 12.0, "2026-03-02": 6.0})


def test_what_no_node_was_seen_for_is_told() -> None:
    """Two CPUs held for an hour before the first node; they are in no bill."""
    found = split([node(1, 2)], [use(0, 2, 2)])
    assert found.usd == pytest.approx(1.0)
    assert found.unplaced_cpu_h == pytest.approx(2.0)
    assert parts(found) == pytest.approx({"trial": 0.5, "idle": 0.5})
