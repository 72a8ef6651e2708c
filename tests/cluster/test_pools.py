"""On a cluster with pools trials and drivers run where they belong, whatever else is free."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import RayCluster
from slow_search import wait_until
from test_job_on_cluster import Submitted


@pytest.fixture(scope="module")
def pooled() -> Iterator[RayCluster]:
    """A head without a label, a node of the system and one for training."""
    cluster = RayCluster(Path(tempfile.mkdtemp(prefix="rwt-", dir="/tmp")))
    try:
        cluster.wait_for(1)
        for count, pool in ((2, "system"), (3, "train")):
            cluster.add_worker(f"pool={pool}")
            cluster.wait_for(count)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def trained(pooled: Any, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """A retraining that has been carried out there."""
    pooled.environ["RAYWF_CLUSTER__POOLS"] = "true"
    return Submitted(pooled, tmp_path_factory.mktemp("churn"))


def test_trials_run_where_training_belongs(trained: Submitted) -> None:
    """All of them on the one node, though another is idle."""
    logs = trained.raywf("job", "logs", trained.result["id"]).stdout
    assert trained.result["status"] == "SUCCEEDED"
    ran_on = set(re.findall(r"trial \S+ ran on node (\w+)", logs))
    assert ran_on == {trained.cluster.node("pool", "train")["node_id"]}


def test_the_driver_runs_on_a_node_of_the_system(trained: Submitted) -> None:
    """Neither on the head, which has no such label here, nor beside the trials."""
    driver = trained.cluster.job(trained.result["id"])["driver_node_id"]
    assert driver == trained.cluster.node("pool", "system")["node_id"]


def test_the_logs_outlive_the_driver_s_node(trained: Submitted) -> None:
    """Ray keeps them on that node alone; the store has them to the last line."""
    before = trained.raywf("job", "logs", trained.result["id"]).stdout
    trained.cluster.kill_worker("pool=system")
    wait_until(lambda: trained.cluster.node("pool", "system") is None, "the node is known to be gone")
    after = trained.raywf("job", "logs", trained.result["id"])
    assert (after.returncode, after.stdout) == (0, before)
    assert "version 1: promoted" in after.stdout
