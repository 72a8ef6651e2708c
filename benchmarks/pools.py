"""Live traffic while a search fills every slot for training of the same cluster.

``python benchmarks/pools.py`` starts a Ray cluster of three nodes on this machine: a head and a node labelled
``pool: serve`` on the first core, a node labelled ``pool: train`` with one slot on the second, as machines of
their own would be. One replica answers rows one by one at a fixed rate, ``--share`` of what it can do at
most. Quiet times, and times in which `raywf search` keeps the slot busy, follow each other ``--times`` times;
the load client runs on the first core in both. ``p99_ratio`` is the median over the pairs of the p99 beside a
search over the quiet one before it. Exits 0 only if no request failed and the slot was busy in every sample
of the searching times.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from load import quantile  # noqa: E402 the folder is a set of scripts
from swap import Load, make_registry, make_workflow  # noqa: E402

from raywf.core.cluster_settings import ClusterSettings  # noqa: E402
from raywf.serving.environment import serve_env  # noqa: E402

SERVE_CORE, TRAIN_CORE = 0, 1
ROWS, COLUMNS, SEARCH_S, WARM_S = 30_000, 20, 600, 3.0
SEARCH = """\
name: beside
task: binary
spine: {path: rows.csv, label: label}
search: {budget_s: %d}
cluster: {pools: true, address: "%s"}
"""


def start_cluster() -> Any:
    """Start the three nodes; what each starts later inherits its core."""
    from ray.cluster_utils import Cluster

    me = psutil.Process()
    store = {"object_store_memory": 200_000_000}
    me.cpu_affinity([SERVE_CORE])
    head = {"num_cpus": 0, "include_dashboard": False, **store}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=0, labels={"pool": "serve"}, **store)
    me.cpu_affinity([TRAIN_CORE])
    cluster.add_node(num_cpus=1, labels={"pool": "train"}, **store)
    cluster.wait_for_nodes()
    return cluster


class Search:
    """`raywf search` on the cluster, its driver on the second core; `busy` are samples of the slot's use."""

    def __init__(self, folder: Path) -> None:
        import ray

        self.busy: list[bool] = []
        raywf = str(Path(sys.executable).parent / "raywf")
        command = ["taskset", "-c", str(TRAIN_CORE), raywf, "search", "-f", str(folder / "workflow.yaml")]
        self._log = (folder / "search.log").open("ab")
        self._process = subprocess.Popen(command, cwd=folder, stdout=self._log, stderr=self._log)
        self._ended = threading.Event()
        self._available = ray.available_resources
        deadline = time.time() + 180
        while not self._is_busy():
            if self._process.poll() is not None or time.time() > deadline:
                raise RuntimeError((folder / "search.log").read_text()[-3000:])
            time.sleep(0.5)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> None:
        """Interrupt it, as Ctrl-C does, and wait until the slot is free."""
        self._ended.set()
        self._thread.join()
        self._process.terminate()
        self._process.wait(timeout=60)
        self._log.close()
        while self._is_busy():
            time.sleep(0.5)

    def _is_busy(self) -> bool:
        return bool(self._available().get("CPU", 0) == 0)

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self.busy.append(self._is_busy())


def write_rows(folder: Path, address: str) -> None:
    """Write a table to search on, and its workflow."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ROWS, COLUMNS))
    label = (values[:, :5].sum(axis=1) + rng.normal(size=ROWS) > 0).astype(int)
    heads = [*(f"x{i}" for i in range(COLUMNS)), "label"]
    np.savetxt(
        folder / "rows.csv",
        np.column_stack([values, label]),
        delimiter=",",
        fmt="%.5g",
        header=",".join(heads),
        comments="",
    )
    (folder / "workflow.yaml").write_text(SEARCH % (SEARCH_S, address))


def measure(url: str, folder: Path, *, seconds: float, rate: float, connections: int) -> dict[str, Any]:
    """Return what requests at a rate saw, after the first seconds."""
    load = Load(url, folder, connections=connections, seconds=seconds + WARM_S, rate=rate)
    samples = load.samples()
    told = [s for s in samples if s[0] >= samples[0][0] + WARM_S]
    times = [s[1] for s in told]
    return {
        "requests": len(samples),
        "failed": sum(s[2] != 200 for s in samples),
        "p50_ms": round(1e3 * quantile(times, 0.5), 3),
        "p99_ms": round(1e3 * quantile(times, 0.99), 3),
    }


def compare(url: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return quiet and searching times side by side."""
    most = Load(url, folder, connections=args.connections, seconds=5).samples()
    rate = args.share * len(most) / 5
    given = {"seconds": args.seconds, "rate": rate, "connections": args.connections}
    quiet, beside, busy = [], [], []
    for _ in range(args.times):
        quiet.append(measure(url, folder, **given))
        search = Search(folder)
        beside.append(measure(url, folder, **given))
        search.end()
        busy += search.busy
        print(quiet[-1], beside[-1], file=sys.stderr, flush=True)
    ratios = [b["p99_ms"] / q["p99_ms"] for q, b in zip(quiet, beside, strict=True)]
    return {
        "requests": sum(one["requests"] for one in quiet + beside),
        "failed": sum(one["failed"] for one in quiet + beside),
        "rate": round(rate),
        "slot_busy": round(sum(busy) / len(busy), 3),
        "p99_ratio": round(statistics.median(ratios), 3),
        "p99_ratios": [round(one, 3) for one in ratios],
        "quiet": quiet,
        "beside": beside,
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.5, help="of the most requests a second")
    parser.add_argument("--rounds", type=int, default=200, help="trees of the model that serves")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    workflow = make_workflow(folder)
    one = replace(workflow.serving, replicas=1)
    workflow = replace(workflow, serving=one, cluster=ClusterSettings(pools=True))
    os.environ.update(serve_env(workflow.serving))
    try:
        registry = make_registry(workflow, folder, args.rounds)
        import ray

        from raywf.serving.deploy import deploy, undeploy

        cluster = start_cluster()
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        write_rows(folder, cluster.address)
        url = deploy(workflow, registry)
        psutil.Process().cpu_affinity([SERVE_CORE])  # and what it starts: the load client
        found = compare(url, folder, args)
        undeploy(workflow)
        ray.shutdown()
        cluster.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0 if found["failed"] == 0 and found["slot_busy"] == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
