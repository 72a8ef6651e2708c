"""On a cluster with pools trials run on the nodes for training alone, whatever else is free."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import RayCluster
from test_job_on_cluster import Submitted


@pytest.fixture
def pooled() -> Iterator[RayCluster]:
    """A head, a node for serving and one for training."""
    cluster = RayCluster(Path(tempfile.mkdtemp(prefix="rwt-", dir="/tmp")))
    try:
        cluster.wait_for(1)
        for count, pool in ((2, "serve"), (3, "train")):
            cluster.add_worker(f"pool={pool}")
            cluster.wait_for(count)
        yield cluster
    finally:
        cluster.stop()


def test_trials_run_where_training_belongs(
    pooled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them on the one node, though another is idle."""
    monkeypatch.setitem(pooled.environ, "RAYWF_CLUSTER__POOLS", "true")
    done = Submitted(pooled, tmp_path)
    logs = done.raywf("job", "logs", done.result["id"]).stdout
    assert done.result["status"] == "SUCCEEDED"
    ran_on = set(re.findall(r"trial \S+ ran on node (\w+)", logs))
    train = [node["node_id"] for node in pooled.nodes() if node["labels"].get("pool") == "train"]
    assert ran_on == set(train)
