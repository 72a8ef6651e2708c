"""The Ray cluster that raywf starts on this machine; imports no Ray, so that its environment comes first."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from raywf.core.errors import ServingError
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.serving.environment import free_ports, serve_env

_STATE = "cluster.json"
_ENDPOINTS = "endpoints"
_START_S = 90.0
_STOP_S = 5.0
_DRAIN_S = 2.0  # for requests under way; an idle client holds its connection longer


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCluster:
    """A cluster that raywf started on this machine: `pid` is its ``ray start --block``."""

    pid: int
    started: float
    address: str
    dashboard: str
    temp_dir: str
    environ: dict[str, str]

    @property
    def is_alive(self) -> bool:
        """Whether the process that started it still runs."""
        starter = self.starter()
        return starter is not None and _is_running(starter)

    def starter(self) -> psutil.Process | None:
        """Return the process that started it, and not another that has its number now."""
        try:
            found = psutil.Process(self.pid)
            return found if abs(found.create_time() - self.started) < 1 else None
        except psutil.NoSuchProcess:
            return None


def find_local(workflow: Workflow) -> LocalCluster | None:
    """Return the cluster that raywf started for this workflow's store, if it is alive."""
    try:
        found = LocalCluster(**json.loads(_state_file(workflow).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.is_alive else None


def endpoint_file(workflow: Workflow) -> str:
    """Return the path below the store of what is known of the workflow's endpoint while it is up."""
    return f"{_ENDPOINTS}/{workflow.name}.json"


def endpoint_store(workflow: Workflow) -> Store:
    """Return where that is: on this machine, whoever shares the store, for a cluster that raywf starts."""
    store = Store(workflow.stores.root)
    return Store(str(store.node_folder)) if cluster_address(workflow) is None else store


def shares_local(workflow: Workflow) -> bool:
    """Return whether others than this workflow are up on the cluster that raywf started."""
    found = endpoint_store(workflow).list(_ENDPOINTS)
    return any(name != f"{workflow.name}.json" for name in found)


def cluster_address(workflow: Workflow) -> str | None:
    """Return the cluster that the user names: RAY_ADDRESS, else `cluster.address`, else None."""
    return os.environ.get("RAY_ADDRESS") or workflow.cluster.address


def may_grow(workflow: Workflow) -> bool:
    """Whether the cluster is the user's, which may add nodes where they are asked for."""
    return find_local(workflow) is None and cluster_address(workflow) is not None


def apply_environment(workflow: Workflow) -> None:
    """Give this process the environment of the workflow's local cluster, if one is up.

    Ray Serve reads its own when it is imported: call this before.
    """
    found = find_local(workflow)
    if found is not None:
        os.environ.update(found.environ)


def start_local(workflow: Workflow) -> LocalCluster:
    """Start a cluster on this machine, or find the one that is up, and apply its environment here.

    Everything listens on loopback, and Ray's token authentication is on.

    Raises:
        ServingError: if it does not come up.
    """
    with starting_local(workflow) as cluster:
        return cluster


@contextmanager
def starting_local(workflow: Workflow) -> Iterator[LocalCluster]:
    """As `start_local`, but wait at the end of the block: what needs the environment alone goes inside."""
    found = find_local(workflow)
    if found is not None:
        os.environ.update(found.environ)
        yield found
        return
    cluster, process = _launch(workflow)
    before = {name: os.environ.get(name) for name in cluster.environ}
    try:
        os.environ.update(cluster.environ)
        yield cluster
        _await_dashboard(cluster, process)
    except BaseException:  # Ctrl-C too must leave no cluster behind
        stop_local(workflow)
        _restore(before)
        raise


def _restore(environ: dict[str, str | None]) -> None:
    for name, value in environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _launch(workflow: Workflow) -> tuple[LocalCluster, subprocess.Popen[bytes]]:
    root = Store(workflow.stores.root).node_folder
    root.mkdir(parents=True, exist_ok=True)
    Store(str(root)).remove(_ENDPOINTS)  # those of a cluster that is gone
    temp_dir = tempfile.mkdtemp(prefix="rwf-", dir="/tmp")
    gcs, dashboard, *agents = free_ports(6, avoid={workflow.serving.port})
    environ = {
        **serve_env(workflow.serving, avoid={gcs, dashboard, *agents}),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_token(root)),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    }
    command = _start_command(gcs, dashboard, agents, temp_dir=temp_dir)
    command.append(f"--num-cpus={workflow.cluster.cpus or os.cpu_count()}")
    with (root / "cluster.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        cluster = LocalCluster(
            pid=process.pid,
            started=psutil.Process(process.pid).create_time(),
            address=f"127.0.0.1:{gcs}",
            dashboard=f"http://127.0.0.1:{dashboard}",
            temp_dir=temp_dir,
            environ=environ,
        )
        _write_private(_state_file(workflow), json.dumps({f: getattr(cluster, f) for f in cluster.__slots__}))
    except BaseException:  # nobody would know of it
        process.kill()
        raise
    return cluster, process


def _start_command(gcs: int, dashboard: int, agents: list[int], *, temp_dir: str) -> list[str]:
    names = ("dashboard-agent-listen", "ray-client-server", "metrics-export", "runtime-env-agent")
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        f"--port={gcs}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--temp-dir={temp_dir}",
        "--disable-usage-stats",
        *(f"--{name}-port={port}" for name, port in zip(names, agents, strict=True)),
    ]


def stop_local(workflow: Workflow) -> bool:
    """End the cluster that raywf started, its own processes only; return whether there was one.

    HAProxy takes no new connection and has two seconds for what is under way. Then all are killed: whatever
    is acknowledged is in the log or the journal, and Ray's starter takes far longer to stop.
    """
    try:
        found = LocalCluster(**json.loads(_state_file(workflow).read_text()))
    except (OSError, ValueError, TypeError):
        return False
    _finish_requests(_processes(found))
    family = _processes(found)
    for process in family:
        _signal(process, signal.SIGKILL)
    strays = _processes(found)  # started while the others were being killed
    for process in strays:
        _signal(process, signal.SIGKILL)
    _await_end([*family, *strays], timeout_s=_STOP_S)
    started_here = set(psutil.Process().children())
    psutil.wait_procs([p for p in family if p in started_here], timeout=_STOP_S)  # takes their exit status
    shutil.rmtree(found.temp_dir, ignore_errors=True)
    Store(str(Store(workflow.stores.root).node_folder)).remove(_ENDPOINTS)
    _state_file(workflow).unlink(missing_ok=True)
    return bool(family)


def _processes(cluster: LocalCluster) -> list[psutil.Process]:
    """Return the starter (first) with its descendants, the rest of its session, and what names its folder."""
    starter = cluster.starter()
    found = [] if starter is None else [starter, *_children(starter)]
    known = starter is not None or not psutil.pid_exists(cluster.pid)  # else its number is another's by now
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        ours = (known and _session(process) == cluster.pid) or any(cluster.temp_dir in word for word in words)
        if ours and process not in found:
            found.append(process)
    return [process for process in found if _is_running(process)]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _finish_requests(processes: list[psutil.Process]) -> None:
    fronts = [process for process in processes if _is_front(process)]
    for front in fronts:
        _signal(front, signal.SIGUSR1)
    _await_end(fronts, timeout_s=_DRAIN_S)


def _is_front(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "haproxy")
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _await_end(processes: list[psutil.Process], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(_is_running(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_running(process: psutil.Process) -> bool:
    """Whether it does anything still: one that waits for its parent to take its exit status does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _await_dashboard(cluster: LocalCluster, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingError(f"Ray did not start (exit {process.returncode}); see cluster.log in the store")
        try:
            with urllib.request.urlopen(f"{cluster.dashboard}/api/authentication_mode", timeout=2):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ServingError(
        f"Ray's dashboard did not answer within {_START_S:.0f} s; see cluster.log in the store"
    )


def _token(root: Path) -> Path:
    path = root / "ray-token"
    if not path.exists():
        _write_private(path, secrets.token_hex(32))
    return path


def _state_file(workflow: Workflow) -> Path:
    return Store(workflow.stores.root).node_folder / _STATE


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
