"""A node that is taken back, with a notice or without, costs a search at most the fold that ran there."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from metadata_service import metadata_service
from nodes import RayCluster
from slow_search import SlowSearch, wait_until

STAYS, GOES, NEXT = "instance-id=i-stays", "instance-id=i-goes", "instance-id=i-next"
NOTICE_S = 12  # a tenth of AWS' two minutes


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head and two nodes, which have the labels of the AWS file."""
    made = RayCluster(Path(tempfile.mkdtemp(prefix="rwt-", dir="/tmp")))
    try:
        made.wait_for(1)
        for count, label in ((2, STAYS), (3, GOES)):
            made.add_worker(label, "node-type=m7i.large")
            made.wait_for(count)
        yield made
    finally:
        made.stop()


def watch(cluster: Any, node_id: str, endpoint: str) -> subprocess.Popen[str]:
    """Start the watcher as the rendered files do, for one node of this machine."""
    command = [sys.executable, "-m", "raywf.cli", "cluster", "watch-spot", "--cloud", "aws", "--json"]
    command += ["--every", "0.2"]
    command += ["--address", cluster.address, "--node-id", node_id, "--endpoint", endpoint]
    return subprocess.Popen(command, env=cluster.environ, stdout=subprocess.PIPE, text=True)


def test_the_nodes_of_a_machine_are_found(cluster: Any) -> None:
    """All of these are of this one, the head too."""
    code = "import sys; from raywf.loop.drain import nodes_here; print(*nodes_here(sys.argv[1]))"
    command = [sys.executable, "-c", code, cluster.address]
    told = subprocess.run(command, env=cluster.environ, capture_output=True, text=True, check=True).stdout
    assert set(told.split()) == {node["node_id"] for node in cluster.nodes()}


def test_a_node_with_a_notice_is_drained(cluster: Any, tmp_path: Path) -> None:
    """Its loss is no failure, of which none is allowed here; all trials are done, at most a fold is lost."""
    slow = SlowSearch(cluster, tmp_path, trials=12, max_failures=0)
    goes = cluster.node("instance-id", "i-goes")
    with metadata_service() as service:
        watcher = watch(cluster, goes["node_id"], service.address)
        job_id = slow.submit()
        slow.await_folds(4)
        service.ends = datetime.now(UTC) + timedelta(seconds=NOTICE_S)
        told, _ = watcher.communicate(timeout=60)
        assert json.loads(told)["nodes"] == [goes["node_id"]]
        by = service.ends - timedelta(seconds=NOTICE_S / 2)
        wait_until(lambda: datetime.now(UTC) > by, "the node should be empty")
    assert len(slow.folds()) < 30  # of 36: both nodes are at work still
    cluster.kill_worker(GOES, "node-type=m7i.large")
    assert slow.await_status(job_id, "SUCCEEDED", "FAILED") == "SUCCEEDED"
    slow.assert_whole()
    assert slow.repeated() <= 1
    gone = wait_until(lambda: cluster.node("instance-id", "i-goes", state="DEAD"), "the node is dead to Ray")
    assert "taken back by the cloud at" in gone["state_message"]


@pytest.mark.slow
def test_a_node_that_is_killed_without_a_notice(cluster: Any, tmp_path: Path) -> None:
    """Its trial is tried again elsewhere, from the fold that was lost."""
    before = len(cluster.nodes())
    cluster.add_worker(NEXT)
    cluster.wait_for(before + 1)
    slow = SlowSearch(cluster, tmp_path, trials=8)
    job_id = slow.submit()
    slow.await_folds(4)
    cluster.kill_worker(NEXT)
    assert slow.await_status(job_id, "SUCCEEDED", "FAILED") == "SUCCEEDED"
    slow.assert_whole()
    assert slow.repeated() <= 1
