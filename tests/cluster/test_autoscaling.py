"""Ray's own autoscaler adds nodes for a search and takes them away after it; its nodes are real raylets."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import RayCluster
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

IDLE_S, MOST = 9.0, 5
UP_S, DOWN_S = 90.0, IDLE_S + 30
SLEEPS = '''
import time
import numpy as np

class Sleeps:
    """Takes a second and knows nothing."""

    def __init__(self, x):
        self.x = x

    def fit(self, X, y):
        time.sleep(1.0)

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)

    def save(self, folder):
        pass

    def load(self, folder):
        pass
'''
SETTINGS = """\
name: sleeps
task: binary
spine: {{path: table.csv, label: y}}
search:
  budget_s: {budget_s}
  trials: 500
  folds: 2
  families: []
  max_concurrent: {most}
  seed: {most}
  models:
    sleeps: {{code: "sleeps.py:Sleeps", trust: true, trials: 500, space: {{x: {{low: 0.0, high: 1.0}}}}}}
"""


class AutoscaledCluster(RayCluster):
    """A head without CPUs, and one to five workers of one CPU that its autoscaler starts and ends."""

    def head_arguments(self) -> tuple[str, ...]:
        """Return the autoscaler's settings; it reads the rest from the environment."""
        self.environ |= {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(autoscaling(self.address)))
        return (f"--autoscaling-config={path}",)

    def workers(self) -> int:
        """Return how many nodes with a CPU are alive; -1 while the cluster does not answer."""
        found = self.nodes()
        return sum(node["resources_total"].get("CPU", 0) > 0 for node in found) if found else -1

    def wait_for_workers(self, count: int, *, seconds: float) -> float:
        """Wait until there are just so many; return the seconds that it took."""
        start = time.monotonic()
        while (found := self.workers()) != count:
            assert time.monotonic() - start < seconds, f"{found} workers, not {count}, after {seconds} s"
            time.sleep(0.25)
        return time.monotonic() - start


def autoscaling(address: str) -> dict[str, object]:
    """Return a cluster's settings in which a node is a raylet on this machine."""
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    worker = {"CPU": 1, "object_store_memory": 80_000_000}
    return {
        "cluster_name": "autoscaled",
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in commands},
        "idle_timeout_minutes": IDLE_S / 60,
        "max_workers": MOST,
        "upscaling_speed": 100.0,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 1, "max_workers": MOST},
        },
    }


class Searching:
    """A search by a process of its own, which then stays connected, and how many workers there are."""

    def __init__(self, cluster: AutoscaledCluster, folder: Path, *, most: int, budget_s: float) -> None:
        self.cluster, self.counts, self.lines = cluster, list[int](), list[str]()
        (folder / "sleeps.py").write_text(SLEEPS)
        draw = random.Random(0)
        rows = [f"{draw.random()},{draw.randint(0, 1)}" for _ in range(400)]
        (folder / "table.csv").write_text("\n".join(["a,y", *rows]))
        (folder / "workflow.yaml").write_text(SETTINGS.format(most=most, budget_s=budget_s))
        driver = Path(__file__).with_name("autoscaled_driver.py")
        kept = {k: v for k, v in cluster.environ.items() if not k.startswith(("RAY_FAKE", "RAY_OVERRIDE"))}
        self._process = subprocess.Popen(
            [sys.executable, str(driver), str(folder / "workflow.yaml")],
            env={**kept, "RAY_ADDRESS": cluster.address},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "driver.log").open("w"),
            text=True,
            cwd=folder,
        )
        self.log = folder / "driver.log"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.strip())
            print(f"{time.monotonic():.1f} {line.strip()}")

    def wait(self, *, seconds: float) -> str:
        """Count workers until the search has ended; return what it said last."""
        deadline = time.monotonic() + seconds
        while not any(line.startswith("ended") for line in self.lines):
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.lines
            self.counts.append(self.cluster.workers())
            time.sleep(0.25)
        return self.lines[-1]

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()


@pytest.fixture(scope="module")
def autoscaled() -> Iterator[AutoscaledCluster]:
    """A cluster with its one least worker."""
    cluster = AutoscaledCluster(Path(tempfile.mkdtemp(prefix="rwt-", dir="/tmp")))
    try:
        cluster.wait_for_workers(1, seconds=UP_S)
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.parametrize(("most", "budget_s"), [pytest.param(MOST, 50, marks=pytest.mark.slow), (2, 25)])
def test_nodes_come_for_a_search_and_go_after_it(
    autoscaled: AutoscaledCluster, tmp_path: Path, most: int, budget_s: float
) -> None:
    """As many as `search.max_concurrent`; then the least, though its process is still there.

    One more may come where the process that measured the pace has not given its CPU back when trials ask.
    """
    autoscaled.wait_for_workers(1, seconds=DOWN_S)
    searching = Searching(autoscaled, tmp_path, most=most, budget_s=budget_s)
    try:
        ended = searching.wait(seconds=UP_S + budget_s)
        down_s = autoscaled.wait_for_workers(1, seconds=DOWN_S)
    finally:
        searching.close()
    print(f"{ended}; workers {sorted(set(searching.counts))}; back to one after {down_s:.1f} s")
    assert most <= max(searching.counts) <= most + 1
    if most == MOST:  # one node may come before there is anything to say
        said = [re.fullmatch(rf"\d of {most} slots up, \d requested \d+ s ago", x) for x in searching.lines]
        assert any(said)
    spent_s, cpu_s = (float(x) for x in re.findall(r"([\d.]+) (?:CPU-)?s\b", ended))
    assert spent_s < cpu_s < most * spent_s  # what was there, not what was asked for
