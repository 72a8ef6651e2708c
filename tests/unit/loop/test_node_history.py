"""The cluster's node history, written from lists that Ray could have given and read again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_service import metadata_service

from raywf.cli.main import cli
from raywf.core.cluster_settings import ClusterSettings
from raywf.core.records import NodeSpan, ReplicaSpan
from raywf.core.serving_settings import ServingSettings
from raywf.core.settings import CostSettings, SpineSettings, StoreSettings, Workflow
from raywf.core.store import Store
from raywf.cost.bill import Bill, Charged
from raywf.cost.nodes import price_nodes
from raywf.cost.reconcile import reconcile
from raywf.cost.split import split
from raywf.loop import gauges
from raywf.loop.node_history import NodeRecorder, joined_nodes, read_history, span_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVER = (NOON - timedelta(days=9), NOON + timedelta(days=9))


def ray_node(name: str, *, alive: bool = True, cpus: float = 8, **labels: Any) -> dict[str, Any]:
    """Return what ``ray.nodes()`` has of a node; ``_`` in a label's name stands for ``-``."""
    told = {f"ray.io/{key.replace('_', '-')}": value for key, value in labels.items() if key != "pool"}
    told |= {"pool": labels["pool"]} if "pool" in labels else {}
    resources = {"CPU": cpus, "node:10.0.0.1": 1.0, "memory": 1e9} if alive else {}
    return {"NodeID": name, "Alive": alive, "Resources": resources, "Labels": told}


@dataclass
class Cluster:
    """A workflow, the time and the nodes that are there, set by the test."""

    root: Path
    nodes: list[dict[str, Any]] = field(default_factory=list)
    now: datetime = NOON
    pools: bool = True

    def recorder(self, name: str = "w") -> NodeRecorder:
        workflow = Workflow(
            name=name,
            task="binary",
            spine=SpineSettings(path="a.csv", label="y"),
            stores=StoreSettings(root=str(self.root)),
            cluster=ClusterSettings(pools=self.pools),
            serving=ServingSettings(replicas=3, replica_cpus=0.0 if self.pools else 0.5),
        )
        return NodeRecorder(workflow, look=lambda: self.nodes, now=lambda: self.now)

    def run(self, recorder: NodeRecorder, minutes: int, *, step_s: float = 60) -> None:
        """Let time pass, with a tick a minute."""
        end = self.now + timedelta(minutes=minutes)
        while self.now < end:
            self.now += timedelta(seconds=step_s)
            recorder.tick()

    def spans(self) -> tuple[NodeSpan, ...]:
        return read_history(str(self.root), *EVER).nodes

    def files(self) -> int:
        return len(Store(str(self.root)).walk("cluster"))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """An empty store and one node on demand."""
    return Cluster(tmp_path, [ray_node("head", cpus=0, pool="system")])


def minutes(span: NodeSpan | ReplicaSpan) -> float:
    return (span.end - span.start).total_seconds() / 60


def test_labels_tell_the_node() -> None:
    """Type, market, kind and region are of Ray's labels; the pool is of the cluster's file."""
    labels: dict[str, Any] = {
        "market_type": "spot",
        "node_group": "train",
        "availability_region": "eu-central-1",
    }
    found = span_of(ray_node("a", pool="train", instance_type="m7i.2xlarge", **labels), NOON)
    assert (found.spot, found.group, found.pool, found.region) == (True, "train", "train", "eu-central-1")
    assert (found.node_type, found.cpus, found.gpus) == ("m7i.2xlarge", 8.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "spot"),
    [
        ({"node_group": "train-spot"}, True),
        ({"node_group": "train-on-demand"}, False),
        ({"node_group": "train-spot", "market_type": "on-demand"}, False),
        ({}, False),
    ],
)
def test_the_market_is_of_the_label_or_the_group(labels: dict[str, Any], spot: bool) -> None:
    """The label goes first."""
    assert span_of(ray_node("a", **labels), NOON).spot is spot


def test_nodes_come_and_go(cluster: Cluster) -> None:
    """One from the third minute to the tenth, which Ray lists as dead from then on."""
    recorder = cluster.recorder()
    cluster.run(recorder, 2)
    cluster.nodes.append(ray_node("spot", market_type="spot", pool="train"))
    cluster.run(recorder, 8)
    cluster.nodes[1] = ray_node("spot", alive=False)
    cluster.run(recorder, 120)
    head, spot = cluster.spans()
    assert (spot.node_id, spot.spot, spot.cpus, minutes(spot)) == ("spot", True, 8.0, 7.0)
    assert minutes(head) == pytest.approx(129, abs=61)


def test_a_day_has_a_file_an_hour(cluster: Cluster) -> None:
    """And one for each node that came or went."""
    recorder = cluster.recorder()
    cluster.run(recorder, 24 * 60, step_s=300)
    assert cluster.files() <= 25


def test_a_restart_loses_nothing(cluster: Cluster) -> None:
    """Another controller goes on with the same nodes: one span each, and one of replicas."""
    cluster.run(cluster.recorder(), 90)
    cluster.run(cluster.recorder(), 61)
    (head,) = cluster.spans()
    assert minutes(head) == pytest.approx(150, abs=2)
    (replicas,) = read_history(str(cluster.root), *EVER).replicas
    assert (replicas.whole_pool, replicas.pool, replicas.cpus) == (True, "serve", 0.0)
    assert minutes(replicas) == pytest.approx(150, abs=2)


def test_the_same_look_twice_is_one_file(cluster: Cluster) -> None:
    """Of two controllers that see the same at the same instant."""
    cluster.recorder().tick()
    cluster.recorder().tick()
    assert cluster.files() == 1


def test_two_workflows_see_one_node(cluster: Cluster) -> None:
    """It is counted once, from the first who saw it to the last; each has its own replicas."""
    cluster.pools = False
    cluster.run(cluster.recorder("a"), 61)
    cluster.run(cluster.recorder("b"), 61)
    history = read_history(str(cluster.root), *EVER)
    assert [minutes(span) for span in history.nodes] == [pytest.approx(121, abs=2)]
    assert {(span.workflow, span.cpus) for span in history.replicas} == {("a", 1.5), ("b", 1.5)}


def test_what_could_not_be_written_is_written_later(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that refuses once loses neither who came nor who went."""
    recorder = cluster.recorder()
    cluster.run(recorder, 1)
    cluster.nodes = []
    with monkeypatch.context() as refusing:
        refusing.setattr(Store, "create", _refuse)
        with pytest.raises(OSError, match="full"):
            cluster.run(recorder, 1)
    cluster.nodes = [ray_node("late")]
    cluster.run(recorder, 1)
    assert [span.node_id for span in cluster.spans()] == ["head", "late"]


def test_history_is_cut_to_what_is_asked(cluster: Cluster) -> None:
    """A node that was there before and after it is there in all of it, and no longer."""
    cluster.run(cluster.recorder(), 3 * 24 * 60, step_s=1800)
    start = NOON + timedelta(hours=30)
    (head,) = read_history(str(cluster.root), start, start + timedelta(hours=2)).nodes
    assert (head.start, head.end) == (start, start + timedelta(hours=2))


@settings(max_examples=30, deadline=None)
@given(
    presence=st.lists(st.tuples(st.integers(0, 300), st.integers(2, 300)), min_size=1, max_size=4),
    restarts=st.sets(st.integers(1, 400), max_size=3),
)
def test_spans_are_what_there_was(presence: list[tuple[int, int]], restarts: set[int]) -> None:
    """To a tick, for nodes that come and go at any minute under a controller that restarts.

    But for those that went just as it did, of which the last hour is lost at most.
    """
    with TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        recorder = cluster.recorder()
        for minute in range(0, 720, 4):
            if restarts & set(range(minute, minute + 4)):
                recorder = cluster.recorder()
            cluster.nodes = [
                ray_node(f"{i}", alive=minute < start + length)
                for i, (start, length) in enumerate(presence)
                if start <= minute
            ]
            cluster.now = NOON + timedelta(minutes=minute)
            recorder.tick()
        found = {span.node_id: span for span in cluster.spans()}
    for i, (start, length) in enumerate(presence):
        seen = [m for m in range(0, 720, 4) if start <= m < start + length]
        if not seen:
            continue
        first, last = (NOON + timedelta(minutes=m) for m in (seen[0], seen[-1]))
        forgets = restarts & set(range(seen[-1] + 1, seen[-1] + 8))
        if len(seen) > 1 and not forgets:
            assert (found[f"{i}"].start, found[f"{i}"].end) == (first, last)
        elif f"{i}" in found:
            assert last - timedelta(hours=1, minutes=4) <= found[f"{i}"].end <= last


@given(st.permutations(range(6)), st.integers(1, 6))
def test_pieces_join_in_any_order(order: Sequence[int], cut: int) -> None:
    """What is read does not depend on who wrote first."""
    span = NodeSpan(node_id="a", start=NOON, end=NOON, cpus=1)
    pieces = [
        NodeSpan(
            node_id=f"{i % 2}", start=NOON + i * timedelta(hours=1), end=NOON + timedelta(hours=9), cpus=1
        )
        for i in order
    ]
    assert joined_nodes([*pieces, span]) == joined_nodes([*joined_nodes(pieces[:cut]), span, *pieces[cut:]])


def test_a_ticker_that_fails_stops_no_other(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that tells figures goes on, and so does the recorder."""

    class Failing:
        def tick(self) -> None:
            raise ValueError("no figure")

    class Last:
        def tick(self) -> None:
            stop.set()

    stop = threading.Event()
    monkeypatch.setattr(gauges, "EVERY_S", 0.001)
    gauges.keep_told([Failing(), cluster.recorder(), Last()], stop)
    assert cluster.files() == 1


def test_a_machine_of_aws_is_found_in_its_bill(cluster: Cluster) -> None:
    """By the labels that it gave itself, though the bill have others of its type that are somebody else's."""
    with metadata_service() as service:
        words = ["cluster", "labels", "--cloud", "aws", "--endpoint", service.address]
        told = CliRunner().invoke(cli, words).stdout.strip()
    node = ray_node("a", pool="train")
    node["Labels"] |= dict(label.split("=") for label in told.split(","))
    cluster.nodes = [node]
    cluster.run(cluster.recorder(), 120)
    priced = price_nodes(cluster.spans(), CostSettings(cloud="aws", region="us-east-1"))
    usd = {
        Charged("2026-03-01", name, "m7i.2xlarge", False, ""): cost
        for name, cost in (("i-0123456789abcdef0", 0.8), ("i-theirs", 5.0))
    }
    bill = Bill(usd=usd, columns={}, other_usd=0.0, rows=2)
    found = reconcile(split(priced, ()).shares, bill, cluster="raywf")
    (pair,) = found.pairs
    assert (pair.by, pair.node_type, pair.billed_usd) == ("id", "m7i.2xlarge", 0.8)
    assert (found.elsewhere_usd, found.only_reckoned) == (5.0, ())


def _refuse(*args: object, **given: object) -> bool:
    raise OSError("full")
