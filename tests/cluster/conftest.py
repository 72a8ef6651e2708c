"""A Ray cluster of several nodes on this machine, each started by `ray start` as an operator would."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from raywf.serving.environment import free_ports

_START_S = 240.0
_TRIES = 5  # `ray start` gives a node up after 30 s, which a busy machine may need


class RayCluster:
    """A head without CPUs and workers of one CPU; ends only the processes that it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nodes: list[psutil.Popen] = []
        self._labels: list[tuple[str, ...]] = []  # of each node
        self._killed: set[int] = set()
        self._token = secrets.token_hex(32)
        (folder / "token").write_text(self._token)
        gcs, dashboard = free_ports(2)
        self.address, self.dashboard = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        binaries = str(Path(sys.executable).parent)
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RAYWF_"))},
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        self._start(
            "--head",
            f"--port={gcs}",
            "--num-cpus=0",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            f"--temp-dir={folder}",
            *self.head_arguments(),
        )

    def head_arguments(self) -> tuple[str, ...]:
        """Return what else the head is started with; its address and its environment are known."""
        return ()

    def add_worker(self, *labels: str) -> None:
        """Start one more node, of one CPU; a label is a text such as "pool=train"."""
        labelled = [f"--labels={','.join(labels)}"] if labels else []
        self._start(f"--address={self.address}", "--num-cpus=1", *labelled, labels=labels)

    def kill_worker(self, *labels: str) -> None:
        """Kill the one node that was started with these labels, all of its processes, as a power cut does."""
        alive = [i for i, kept in enumerate(self._labels) if kept == labels and i not in self._killed]
        for number in alive:
            starter = self._nodes[number]
            if starter.poll() is None:
                self._killed.add(number)
                _kill([*starter.children(recursive=True), starter])

    def nodes(self, *, state: str = "ALIVE") -> list[dict[str, Any]]:
        """Return what the cluster's own API says of its nodes in a state; empty while it does not answer."""
        try:
            found = self._ask("/api/v0/nodes")["data"]["result"]["result"]
        except (urllib.error.URLError, OSError):
            return []
        return [node for node in found if node["state"] == state]

    def node(self, label: str, value: str, *, state: str = "ALIVE") -> dict[str, Any] | None:
        """Return the one node with a label, or None."""
        return next((n for n in self.nodes(state=state) if n["labels"].get(label) == value), None)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return what the cluster's own API says of a job; empty while it does not answer."""
        try:
            found: dict[str, Any] = self._ask(f"/api/jobs/{job_id}")
        except (urllib.error.URLError, OSError):
            return {}
        return found

    def _ask(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"{self.dashboard}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def wait_for(self, count: int) -> None:
        """Wait until that many nodes are alive; a worker that gave up is started again."""
        deadline = time.monotonic() + _START_S
        while len(self.nodes()) < count:
            ended = {i for i, node in enumerate(self._nodes) if node.poll() is not None}
            gave_up = ended - self._killed
            if 0 in gave_up or len(gave_up) >= _TRIES or time.monotonic() > deadline:
                raise AssertionError(f"not {count} nodes: {(self.folder / 'start.log').read_text()[-3000:]}")
            if len(self._nodes) - len(ended) < count:
                self.add_worker(*self._labels[max(gave_up, default=0)])
            time.sleep(0.2)

    def stop(self) -> None:
        """End every node and remove the folder."""
        _kill([p for node in self._nodes if node.is_running() for p in (*node.children(True), node)])
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *arguments: str, labels: tuple[str, ...] = ()) -> None:
        ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += ["--object-store-memory=150000000", *arguments]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # two nodes of one machine share a range
        command += [f"--{n}-port={p}" for n, p in zip(ports, free_ports(len(ports)), strict=True)]
        with (self.folder / "start.log").open("ab") as log:
            self._nodes.append(psutil.Popen(command, env=self.environ, stdout=log, stderr=log))
            self._labels.append(labels)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """A head and two workers, with Ray's token authentication."""
    cluster = RayCluster(Path(tempfile.mkdtemp(prefix="rwt-", dir="/tmp")))
    try:
        cluster.wait_for(1)
        for count in (2, 3):  # one after the other: each start wants a core for itself
            cluster.add_worker()
            cluster.wait_for(count)
        yield cluster
    finally:
        cluster.stop()
