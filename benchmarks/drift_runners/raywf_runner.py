"""Compares two Parquet files column by column, here or on a cluster of several nodes on this machine."""

import json
import logging
import os
import resource
import sys
import time
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.cluster_utils import Cluster

from raywf.core.drift import TableDrift
from raywf.loop.drift import DriftOptions, compare_tables, find_side

STORE_BYTES = 200_000_000


def no_workflow() -> Any:
    raise AssertionError("both tables are files")


def compare(asked: dict[str, Any], options: DriftOptions, *names: str) -> tuple[TableDrift, float, float]:
    """Compare the two named files; return what was found, the seconds and this process' CPU-seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    sides = [find_side(asked[name], no_workflow) for name in names]
    found = compare_tables(sides[0], sides[1], options)
    return found, time.perf_counter() - start, time.process_time() - cpu


def on_cluster(asked: dict[str, Any], nodes: int) -> tuple[TableDrift, float]:
    """Start a head without CPUs and so many nodes of one; the workers are up when the clock begins."""
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        options = DriftOptions(address=cluster.address)
        compare(asked, options, "warm", "warm")
        found, seconds, _ = compare(asked, options, "reference", "current")
        return found, seconds
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    asked = json.loads(sys.stdin.read())
    if asked["nodes"]:
        found, seconds = on_cluster(asked, asked["nodes"])
        made: dict[str, Any] = {"s": seconds}
    else:
        compare(asked, DriftOptions(cpus=1), "warm", "warm")  # what is imported late
        found, seconds, cpu_s = compare(asked, DriftOptions(), "reference", "current")
        made = {"s": seconds, "cpu_s": cpu_s}
        made["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**made, "drifted": sorted(found.drifted), "rows": found.rows}))


main()
