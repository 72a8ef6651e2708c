"""The cluster's bill from a store that was made up: history, ledgers and prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.core.cluster_settings import ClusterSettings
from raywf.core.records import Attempt, ReplicaSpan, Sweep, Trial
from raywf.core.serving_settings import ServingSettings
from raywf.core.settings import CostSettings, SpineSettings, StoreSettings, Workflow
from raywf.loop.cluster_cost import (
    ClusterCost,
    by_day,
    by_node_type,
    by_version,
    by_workflow,
    read_cluster_cost,
    replica_uses,
)
from raywf.loop.node_history import NodeRecorder
from raywf.search.ledger import Ledger

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ray_node(name: str, pool: str, cpus: float, node_type: str, *, spot: bool = False) -> dict[str, object]:
    """Return what ``ray.nodes()`` has of a node."""
    labels = {"pool": pool, "node-type": node_type, "ray.io/market-type": "spot" if spot else "on-demand"}
    return {"NodeID": name, "Alive": True, "Resources": {"CPU": cpus}, "Labels": labels}


def make_sweep() -> Sweep:
    """Return a search whose trials held three quarters of it."""
    trial = Trial(id="linear-1", family="linear", params={}, status="done", seconds=9, cost_usd=0.3)
    return Sweep(
        id="one",
        snapshot_id="d",
        metric="roc_auc",
        greater_is_better=True,
        trials=(trial,),
        members=(),
        score=0.8,
        calibrated=False,
        budget_s=60,
        spent_s=60,
        cpu_s=120,
        cost_usd=0.4,
    )


@pytest.fixture
def found(tmp_path: Path) -> ClusterCost:
    """A head, a node to serve and a spot node to train for 16 hours; a search held the last for 8 of them."""
    workflow = Workflow(
        name="w",
        task="binary",
        spine=SpineSettings(path="a.csv", label="y"),
        stores=StoreSettings(root=str(tmp_path)),
        cluster=ClusterSettings(pools=True),
        serving=ServingSettings(replicas=2, replica_cpus=1.0),
        cost=CostSettings(cloud="aws", region="us-east-1"),
    )
    nodes = [
        ray_node("head", "system", 0, "m7i.large"),
        ray_node("serve", "serve", 4, "m7i.xlarge"),
        ray_node("train", "train", 8, "m7i.2xlarge", spot=True),
    ]
    now = [NOON]
    recorder = NodeRecorder(workflow, look=lambda: nodes, now=lambda: now[0])
    for step in range(17):
        now[0] = NOON + step * HOUR
        recorder.tick()
    attempt = Attempt(workflow="w", started=NOON + HOUR, wall_s=8 * 3600, cpu_s=64 * 3600, cost_usd=0.4)
    ledger = Ledger(str(tmp_path), "one")
    ledger.note(attempt)
    ledger.write_sweep(make_sweep())
    return read_cluster_cost(workflow, NOON, NOON + 24 * HOUR)


def test_parts_are_of_what_was_held(found: ClusterCost) -> None:
    """Of 16 hours of each node: half of one is of trials and their job, half of another of replicas."""
    parts = {line.name: line.parts for line in by_node_type(found)}
    spot = 16 * 0.15
    assert parts["m7i.2xlarge spot"]["trial"] == pytest.approx(0.5 * 0.75 * spot)
    assert parts["m7i.2xlarge spot"]["search"] == pytest.approx(0.5 * 0.25 * spot)
    assert parts["m7i.2xlarge spot"]["idle"] == pytest.approx(0.5 * spot)
    assert parts["m7i.xlarge on demand"]["replica"] == pytest.approx(0.5 * 16 * 0.2016)
    assert parts["m7i.large on demand"]["system"] == pytest.approx(16 * 0.1008)


def test_each_view_sums_to_the_bill(found: ClusterCost) -> None:
    """By node type, day, workflow or version."""
    bill = 16 * (0.15 + 0.2016 + 0.1008)
    assert found.split.usd == pytest.approx(bill)
    for view in (by_node_type, by_day, by_workflow, by_version):
        assert sum(line.usd for line in view(found)) == pytest.approx(bill, rel=1e-9)


def test_views_name_their_lines(found: ClusterCost) -> None:
    """Nodes with their hours; days; workflows, and last what is nobody's."""
    assert [(line.name, line.nodes, line.hours) for line in by_node_type(found)] == [
        ("m7i.xlarge on demand", 1, 16.0),
        ("m7i.2xlarge spot", 1, 16.0),
        ("m7i.large on demand", 1, 16.0),
    ]
    assert [line.name for line in by_day(found)] == ["2026-03-01", "2026-03-02"]
    assert [line.name for line in by_workflow(found)] == ["w", "none"]
    assert [line.name for line in by_version(found)] == ["w -", "none"]


def test_replicas_that_hold_nothing_are_no_use() -> None:
    """Without CPUs of their own and without a pool of their own."""
    span = ReplicaSpan(workflow="w", start=NOON, end=NOON + HOUR, cpus=0.0)
    assert list(replica_uses([span])) == []
