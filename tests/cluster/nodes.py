"""A Ray cluster of several nodes on this machine, each started by `ray start` as an operator would."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from network import Loopback, Network, Place

from raywf.serving.environment import free_ports

_START_S = 240.0
_TRIES = 5  # `ray start` gives a node up after 30 s, which a busy machine may need
_BINARIES = Path(sys.executable).parent
_NAME = "node"  # the label that tells one worker from another
_PORTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")


class RayNode:
    """One node: its `ray start`, and what that has left running where it does not stay itself."""

    def __init__(
        self, place: Place, arguments: tuple[str, ...], environ: dict[str, str], folder: Path, *, stays: bool
    ) -> None:
        self.place, self.arguments, self.environ = place, arguments, environ
        self.left: list[psutil.Process] = []
        self._folder, self._stays = folder, stays
        self.start()

    def start(self) -> None:
        """Start it, or start it again after it gave up."""
        command = [*self.place.enter, sys.executable, "-m", "ray.scripts.scripts", "start"]
        command += ["--disable-usage-stats", *(["--block"] if self._stays else [])]
        command += [f"--node-ip-address={self.place.address}"] if self.place.namespace else []
        command += ["--object-store-memory=150000000", *self.arguments]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # two nodes of one machine share a range
        command += [f"--{n}-port={p}" for n, p in zip(_PORTS, free_ports(len(_PORTS)), strict=True)]
        with (self._folder / "start.log").open("ab") as log:
            out = {"stdout": log, "stderr": log}
            self._starter = psutil.Popen(command, env=self.environ, start_new_session=True, **out)
        if not self._stays:
            self._starter.wait(timeout=_START_S)
            self.left = [p for p in psutil.process_iter() if str(self._folder) in command_of(p)]

    @property
    def gave_up(self) -> bool:
        """Whether its `ray start` has failed."""
        return self._starter.poll() not in {None, 0}

    def processes(self) -> list[psutil.Process]:
        """Return all that runs on the node, whoever has started it there."""
        if self.place.namespace:
            return [p for pid in self.place.pids() if (p := _process(pid)) is not None]
        found: list[psutil.Process] = []
        for root in (self._starter, *self.left):
            with suppress(psutil.NoSuchProcess):
                found += [*root.children(recursive=True), root]
        return [process for process in found if _is_running(process)]

    def titles(self) -> list[str]:
        """Return the command line of each; a worker's says what it does."""
        return [command_of(process) for process in self.processes()]

    def kill(self) -> None:
        """End everything on it at once, as the loss of its machine would."""
        while alive := self.processes():
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, timeout=0.5)
        self._starter.wait()


class Gcs:
    """The GCS of a head that keeps its state, which can be killed and started again as it was."""

    def __init__(self, head: RayNode) -> None:
        self._head = head
        self._command: list[str] = []
        self._environ: dict[str, str] = {}

    def kill(self) -> None:
        """End it, and nothing else on the head."""
        (server,) = [p for p in self._head.processes() if _is_gcs(p)]
        self._command, self._environ = server.cmdline(), server.environ()
        server.kill()
        while _is_running(server):
            time.sleep(0.01)

    def start(self) -> None:
        """Start it from what it has on disk, with the same command and environment."""
        command = [*self._head.place.enter, *self._command]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        self._head.left.append(psutil.Popen(command, env=self._environ, start_new_session=True, **silent))


class RayCluster:
    """A head without CPUs and workers of one CPU; ends only the processes that it has started.

    Of a head that `keeps_state` the tables are on disk, and its `ray start` does not stay to end the node
    once a process of it dies: its GCS can be killed and started again.
    """

    def __init__(self, folder: Path, *, network: Network | None = None, keeps_state: bool = False) -> None:
        self.folder, self._network = folder, network or Loopback()
        self._workers: list[RayNode] = []
        self._token = secrets.token_hex(32)
        (folder / "token").write_text(self._token)
        gcs, dashboard = free_ports(2)
        place = self._network.place()
        self.address = f"{place.address}:{gcs}"
        self.dashboard = f"http://{place.address}:{dashboard}"
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RAYWF_"))},
            "PATH": f"{_BINARIES}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        if keeps_state:
            self.environ |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder / "gcs")}
        arguments = (
            "--head",
            f"--port={gcs}",
            "--num-cpus=0",
            f"--dashboard-host={place.address}",
            f"--dashboard-port={dashboard}",
            f"--temp-dir={folder}",
            *self.head_arguments(),
        )
        self.head = RayNode(place, arguments, self._environ_of(place), folder, stays=not keeps_state)

    def head_arguments(self) -> tuple[str, ...]:
        """Return what else the head is started with; its address and its environment are known."""
        return ()

    def node_environ(self, place: Place) -> dict[str, str]:
        """Return the variables that one node has beside the cluster's."""
        return {}

    def add_worker(self, *labels: str) -> RayNode:
        """Start one more node, of one CPU; a label is a text such as "pool=train"."""
        place, name = self._network.place(), f"{_NAME}={secrets.token_hex(4)}"
        arguments = (f"--address={self.address}", "--num-cpus=1", f"--labels={','.join((*labels, name))}")
        node = RayNode(place, arguments, self._environ_of(place), self.folder, stays=True)
        self._workers.append(node)
        return node

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
        self._await(lambda: len(self.nodes()) >= count, f"{count} nodes")

    def wait_until_up(self, node: RayNode) -> None:
        """Wait until one worker is alive, started again if it gave up."""
        name = node.arguments[-1].rpartition(f"{_NAME}=")[2]
        self._await(lambda: any(n["labels"].get(_NAME) == name for n in self.nodes()), f"node {name}")

    def kill(self, node: RayNode) -> None:
        """Lose a worker for good."""
        node.kill()
        self._workers.remove(node)

    def kill_worker(self, *labels: str) -> None:
        """Lose the one worker that was started with these labels."""
        (found,) = [n for n in self._workers if n.arguments[-1].startswith(f"--labels={','.join(labels)},")]
        self.kill(found)

    def stop(self) -> None:
        """End every node and remove the folder."""
        for node in (*self._workers, self.head):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def raywf(
        self, folder: Path, *words: str, address: str = "", at: RayNode | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line in a folder, by default against the dashboard, as from a laptop."""
        inside = at.place.enter if at else ()
        return subprocess.run(
            [*inside, *self.command(folder, *words, address=address)],
            capture_output=True,
            text=True,
            env={**(at.environ if at else self.environ), **environ},
            timeout=150,
            cwd=folder,
            check=False,
        )

    def command(self, folder: Path, *words: str, address: str = "") -> list[str]:
        """Return a command of the command line for the folder's workflow on this cluster."""
        at = f"cluster.address={address or self.dashboard}"
        return [str(_BINARIES / "raywf"), *words, "-f", str(folder / "workflow.yaml"), "--set", at]

    def _environ_of(self, place: Place) -> dict[str, str]:
        return {**self.environ, **self.node_environ(place)}

    def _await(self, is_so: Callable[[], bool], what: str) -> None:
        deadline, failed = time.monotonic() + _START_S, 0
        while not is_so():
            gave_up = [node for node in self._workers if node.gave_up]
            failed += len(gave_up)
            if self.head.gave_up or failed >= _TRIES or time.monotonic() > deadline:
                raise AssertionError(f"not {what}: {(self.folder / 'start.log').read_text()[-3000:]}")
            for node in gave_up:
                node.start()
            time.sleep(0.2)


def command_of(process: psutil.Process) -> str:
    """Return a process's command line; empty if it has just ended."""
    try:
        return " ".join(process.cmdline()).rstrip()  # Ray writes titles over what was longer
    except psutil.Error:
        return ""


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _is_gcs(process: psutil.Process) -> bool:
    return Path(command_of(process).partition(" ")[0]).name == "gcs_server"


def _is_running(process: psutil.Process) -> bool:
    """Whether it does anything still: one that waits for its parent to take its exit status does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
