"""What each fault costs the endpoint beneath traffic: ``python benchmarks/faults.py --times 10``.

A cluster of this machine with two replicas, a monitor and an MLflow server answers eight callers who predict
a row, report its outcome, and never try again; 64 MB of memory are the disk (where this user may mount it).
Each fault is made so many times. ``failed`` counts requests without the expected answer from the fault until
all is as before; ``recovered_s`` is how long that took; ``lost`` counts what was acknowledged and is not in
the log at the end. ``--out docs/reliability.md`` writes the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil  # noqa: E402
from swap import make_registry  # noqa: E402 the folder is a set of scripts

from raywf.client import CallError, Client  # noqa: E402
from raywf.core.errors import ServingError  # noqa: E402
from raywf.core.own import workflow_metric  # noqa: E402
from raywf.core.records import Prediction  # noqa: E402
from raywf.core.serving_settings import ServingSettings  # noqa: E402
from raywf.core.settings import SpineSettings, StoreSettings, Workflow  # noqa: E402
from raywf.loop.references import RegistryReferences  # noqa: E402
from raywf.outcomes import LogReader  # noqa: E402
from raywf.registry.registry import CHAMPION, Registry  # noqa: E402
from raywf.serving.environment import free_ports, serve_env  # noqa: E402
from raywf.testing import SMALL_ROW  # noqa: E402

CALLERS, PAUSE_S, QUIET_S, DISK_MB, LONGEST_S = 8, 0.02, 1.5, 64, 90.0


class Traffic:
    """Callers who keep what was acknowledged, and when a request failed."""

    def __init__(self, url: str) -> None:
        self._url, self._end = url, threading.Event()
        self.predicted: list[str] = []
        self.labelled: list[str] = []
        self.failures: list[tuple[float, str]] = []
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        count = 0
        with Client(self._url, retries=0, timeout_s=15) as client:
            while not self._end.wait(PAUSE_S):
                count += 1
                one = f"{number}-{count}"
                with self._noting():
                    client.predict(dict(SMALL_ROW), prediction_id=one)
                    self.predicted.append(one)
                with self._noting():
                    client.report(one, "late")
                    self.labelled.append(one)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except CallError as err:
            self.failures.append((time.monotonic(), str(err)[:100]))


@dataclass
class Site:
    """What runs, and how to look at it and harm it."""

    workflow: Workflow
    registry: Registry
    server: subprocess.Popen[bytes]
    monitor: Any = None
    url: str = ""
    broken: str = ""
    found: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def replicas(self) -> dict[int, str]:
        """Return the version that each replica serves, by process."""
        from raywf.serving.deploy import app_name
        from raywf.serving.swap import broadcast

        with contextlib.suppress(ServingError):
            statuses = broadcast(app_name(self.workflow), "served", deadline=time.monotonic() + 3)
            return {int(s.replica.rsplit(":", 1)[1]): s.version for s in statuses if s.ok}
        return {}

    def processes(self, word: str) -> list[int]:
        """Return this cluster's processes with a word in their name."""
        ours = psutil.Process().children(recursive=True)
        return [p.pid for p in ours if p.is_running() and word in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return [process.name(), *process.cmdline()]
    except psutil.Error:
        return []


def until(what: str, test: Callable[[], bool], seconds: float = LONGEST_S) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def kill_replica(site: Site) -> None:
    """A replica is killed."""
    before = set(site.replicas())
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until("two replicas", lambda: len(site.replicas()) == 2 and victim not in site.replicas())


def kill_haproxy(site: Site) -> None:
    """HAProxy is killed."""
    victims = site.processes("haproxy.cfg")
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    until("HAProxy", lambda: bool(set(site.processes("haproxy.cfg")) - set(victims)))


def kill_controller(site: Site) -> None:
    """Ray Serve's controller is killed."""
    (victim,) = site.processes("ray::ServeController")
    os.kill(victim, signal.SIGKILL)
    until("a controller", lambda: bool(set(site.processes("ray::ServeController")) - {victim}))
    until("two replicas", lambda: len(site.replicas()) == 2)


def kill_monitor(site: Site) -> None:
    """The monitor is killed; it is back when it has read the whole log again."""
    import ray

    before = ray.get(site.monitor.counts.remote(), timeout=60)
    os.kill(ray.get(site.monitor.pid.remote(), timeout=60), signal.SIGKILL)
    time.sleep(0.1)
    again = ray.get(site.monitor.counts.remote(), timeout=LONGEST_S)
    assert again["predictions"] >= before["predictions"], (before, again)


def stop_registry(site: Site) -> None:
    """The registry is stopped and a replica killed: the new one starts from the cache."""
    os.killpg(site.server.pid, signal.SIGKILL)
    site.server.wait()
    kill_replica(site)
    site.server = start_server(site.workflow)


def fill_disk(site: Site) -> None:
    """The disk is full for two seconds: nothing is acknowledged meanwhile."""
    ballast = Path(site.workflow.stores.root) / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)
    time.sleep(2)
    ballast.unlink()


def swap_in_garbage(site: Site) -> None:
    """A bundle whose files are damaged is to be swapped in: it is refused."""
    from raywf.serving.deploy import app_name
    from raywf.serving.swap import swap

    before = site.replicas()
    try:
        swap(app_name(site.workflow), site.registry.version(site.broken), timeout_s=30)
    except ServingError:
        assert site.replicas() == before
    else:
        raise RuntimeError("a damaged bundle was swapped in")


FAULTS: dict[str, Callable[[Site], None]] = {
    "kill -9 of a replica": kill_replica,
    "kill -9 of HAProxy": kill_haproxy,
    "kill -9 of Ray Serve's controller": kill_controller,
    "kill -9 of the monitor": kill_monitor,
    "registry stopped, then kill -9 of a replica": stop_registry,
    "disk full for 2 s": fill_disk,
    "a damaged bundle swapped in": swap_in_garbage,
}


def make_fault(site: Site, traffic: Traffic, name: str) -> None:
    """Make a fault, wait until all is as before, and note what it cost."""
    start = time.monotonic()
    FAULTS[name](site)
    back = time.monotonic()
    while traffic.failures and time.monotonic() - max(back, traffic.failures[-1][0]) < QUIET_S:
        time.sleep(0.1)
    failed = [at for at, _ in traffic.failures if at >= start]
    recovered = max([back, *failed]) - start
    site.found.setdefault(name, []).append((len(failed), recovered))
    print(name, len(failed), f"{recovered:.2f} s", file=sys.stderr, flush=True)


def start_server(workflow: Workflow) -> subprocess.Popen[bytes]:
    """Start MLflow's server on the workflow's store, and wait until it answers."""
    port = workflow.stores.mlflow.rsplit(":", 1)[1]  # type: ignore[union-attr]
    folder = Path(workflow.stores.root).parent
    command = [sys.executable, "-m", "mlflow", "server", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it runs uvicorn by name
    with (folder / "mlflow.log").open("ab") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PATH": path}
        )

    def is_up() -> bool:
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"{workflow.stores.mlflow}/health", timeout=2).status == 200)
        return False

    until("MLflow's server", is_up)
    return server


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk at a folder; where this user may not, say so."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def run(workflow: Workflow, folder: Path, names: list[str], times: int) -> tuple[Site, dict[str, int]]:
    server = start_server(workflow)
    registry = make_registry(workflow, folder, 50)
    site = Site(workflow, registry, server, broken="3")
    for path in (folder / "artifacts").rglob("digests.json"):
        if registry.version(site.broken).run_id in str(path):
            path.with_name("encoder.json").write_bytes(b"{}")
    registry.point(CHAMPION, "1")
    import ray

    from raywf.monitor.actor import MonitorActor  # imports ray, which reads the environment
    from raywf.serving.deploy import deploy

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    site.url = deploy(workflow, registry)
    options = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": 4, "num_cpus": 0}
    references = RegistryReferences(workflow, registry)
    actor = ray.remote(MonitorActor).options(**options)
    site.monitor = actor.remote(workflow, references, workflow_metric(workflow))
    traffic = Traffic(site.url)
    try:
        time.sleep(3)
        for name in names:
            for _ in range(times):
                make_fault(site, traffic, name)
                time.sleep(1)
    finally:
        traffic.end()
        os.killpg(site.server.pid, signal.SIGKILL)
    entries, _ = LogReader(workflow.stores.root, workflow.name).read()
    ids = {is_one: {e.id for e in entries if isinstance(e, Prediction) is is_one} for is_one in (True, False)}
    totals = {
        "predictions": len(traffic.predicted),
        "outcomes": len(traffic.labelled),
        "lost_predictions": len(set(traffic.predicted) - ids[True]),
        "lost_outcomes": len(set(traffic.labelled) - ids[False]),
        "failed": len(traffic.failures),
    }
    ray.shutdown()
    return site, totals


def as_page(found: dict[str, list[tuple[int, float]]], totals: dict[str, int], times: int) -> str:
    rows = [
        f"| {name} | {median(f for f, _ in one):g} | {max(f for f, _ in one)} | "
        f"{median(s for _, s in one):.1f} | {max(s for _, s in one):.1f} |"
        for name, one in found.items()
    ]
    return f"""# What a fault costs

Written by `python benchmarks/faults.py --times {times} --out docs/reliability.md` on {os.cpu_count()} cores:
two replicas, {CALLERS} callers who predict a row and report its outcome about {1 / PAUSE_S:.0f} times a
second each and never try again. Each fault was made {times} times. A request has failed if it had no answer,
or another one than 200 or 202; the seconds are from the fault until everything is there again and answers.

| fault | failed requests, median | most | seconds to recover, median | most |
|---|---|---|---|---|
{chr(10).join(rows)}

Acknowledged in all: {totals["predictions"]} predictions and {totals["outcomes"]} outcomes.
Of them lost: {totals["lost_predictions"]} predictions, {totals["lost_outcomes"]} outcomes.

Without HAProxy connections are refused at once, so that callers who never wait fail often until there is
another one. A killed replica takes the requests with it that it was answering; HAProxy gives one that had
no byte of answer yet to another replica. While the disk is full every request is refused with 503 and
nothing is acknowledged. Without a registry replicas go on with what they have, and new ones start from the
last good bundle on disk. A bundle whose files are not those that were registered is never served.
"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", help="faults with this word in their name")
    parser.add_argument("--out", type=Path, help="where the page goes")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    ports = free_ports(2)
    workflow = Workflow(
        name="bench",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late"),
        serving=ServingSettings(port=ports[0], replicas=2),
        stores=StoreSettings(root=str(folder / "root"), mlflow=f"http://127.0.0.1:{ports[1]}"),
    )
    os.environ.update(serve_env(workflow.serving, avoid=set(ports)))
    os.environ["RAY_AUTH_MODE"] = "disabled"
    start = datetime.now(UTC)
    try:
        with small_disk(folder / "root") as is_small:
            names = [n for n in FAULTS if (args.only or "") in n and (is_small or n != "disk full for 2 s")]
            site, totals = run(workflow, folder, names, args.times)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.out:
        args.out.write_text(as_page(site.found, totals, args.times))
    worst = {
        name: {"failed": max(f for f, _ in one), "recovered_s": round(max(s for _, s in one), 2)}
        for name, one in site.found.items()
    }
    took = (datetime.now(UTC) - start).total_seconds()
    print(json.dumps(totals | {"times": args.times, "faults": worst, "took_s": round(took)}))


if __name__ == "__main__":
    main()
