"""Nodes to their prices: by type and market, by the pool's type, or by CPUs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from raywf.core.records import NodeSpan
from raywf.core.settings import CostSettings
from raywf.cost.nodes import price_nodes

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AWS = CostSettings(cloud="aws", region="us-east-1")


def span(**given: object) -> NodeSpan:
    fields: dict[str, object] = {"cpus": 8.0, **given}
    return NodeSpan(node_id="a", start=NOON, end=NOON + timedelta(hours=2), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "cost", "usd", "note"),
    [
        (span(node_type="m7i.2xlarge"), AWS, 0.4032, ""),
        (span(node_type="m7i.2xlarge", spot=True), AWS, 0.15, ""),
        (span(node_type="m7i.xlarge", region="eu-central-1"), AWS, 0.2415, ""),
        (span(node_type="m7i.2xlarge"), CostSettings(discount=0.5), 0.2016, ""),
        (span(pool="train"), AWS, 0.4032, "m7i.2xlarge: by the settings of pool train"),
        (span(), AWS, 0.4032, "nodes of unknown type, priced by CPU as m7i.xlarge on demand"),
        (span(node_type="rack-7"), AWS, 0.4032, "rack-7: no price in the table, priced by CPU"),
        (span(cpus=0.0), AWS, 0.0, "a node: no CPUs and no price in the table; it counts nothing"),
        (span(node_type="m7i.2xlarge"), CostSettings(usd_per_cpu_hour=0.02), 0.16, ""),
    ],
)
def test_a_node_has_a_price(node: NodeSpan, cost: CostSettings, usd: float, note: str) -> None:
    """And what was assumed for it is said."""
    (found,) = price_nodes([node], cost, {"train": "m7i.2xlarge"})
    assert found.usd_per_hour == pytest.approx(usd)
    assert found.usd == pytest.approx(2 * usd)
    assert found.note.startswith(note)
    assert bool(found.note) == bool(note)
