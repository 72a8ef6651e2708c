"""Half an hour at half capacity with a swap each minute: ``python benchmarks/soak.py [--minutes 30]``.

Two replicas and a monitor on this machine; the requests come from h2load (``apt install nghttp2-client``), or
else from `load.py`, and beside them one caller predicts and reports outcomes. Windows of the monitor are ten
seconds long and its horizon a minute, so that it forgets as it would after months. Each five seconds the
memory and the open files of replicas and monitor are looked at, after the first third of the time, in which
pools and caches fill. A slope is the mean growth from one two minutes' mean to the next, since memory moves
in steps, `noise` its standard error, and `is_flat` says that no slope is above twice its noise, or that it
comes to less than one per cent of the memory over the run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from swap import VERSIONS, Load, make_registry  # noqa: E402 the folder is a set of scripts

from raywf.client import CallError, Client  # noqa: E402
from raywf.core.duration import parse_duration  # noqa: E402
from raywf.core.own import workflow_metric  # noqa: E402
from raywf.core.serving_settings import ServingSettings  # noqa: E402
from raywf.core.settings import MonitorSettings, SpineSettings, StoreSettings, Workflow  # noqa: E402
from raywf.monitor.reference import KnownReferences, Reference  # noqa: E402
from raywf.registry.registry import CHAMPION  # noqa: E402
from raywf.serving.environment import free_ports, serve_env  # noqa: E402
from raywf.testing import SMALL_ROW  # noqa: E402

SHARE, CONNECTIONS, LOOK_S, SWAP_S, BLOCK_S, SETTLE = 0.5, 16, 5.0, 60.0, 120.0, 1 / 3


class Reports:
    """A caller who predicts a row and reports what became of it, 20 times a second."""

    def __init__(self, url: str) -> None:
        self._url, self._end = url, threading.Event()
        self.made = self.failed = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with Client(self._url, retries=0) as client:
            while not self._end.wait(0.05):
                self.made += 2
                try:
                    client.report(client.predict(dict(SMALL_ROW)).id, "late")
                except CallError:
                    self.failed += 1


def look(pids: dict[str, int]) -> dict[str, tuple[float, int]]:
    """Return each process' memory in MB and its open files."""
    found = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        found[name] = (process.memory_info().rss / 1e6, process.num_fds())
    return found


def slope(times: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the mean growth between blocks of two minutes and its standard error, a second.

    Memory moves in steps: a line's own error would take each step for a trend.
    """
    blocks = (times // BLOCK_S).astype(int)
    means = np.array([values[blocks == block].mean() for block in np.unique(blocks)])
    growth = np.diff(means) / BLOCK_S
    if len(growth) < 2:
        return float(growth.sum()), float("inf")
    return float(growth.mean()), float(growth.std(ddof=1) / np.sqrt(len(growth)))


def soak(workflow: Workflow, folder: Path, seconds: float) -> dict[str, Any]:
    registry = make_registry(workflow, folder, 200)
    import ray

    from raywf.monitor.actor import MonitorActor  # imports ray, which reads the environment
    from raywf.serving.deploy import app_name, deploy
    from raywf.serving.swap import broadcast, swap

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    url = deploy(workflow, registry)
    known = {
        str(v): Reference(version=str(v), task="binary", classes=("no", "late"))
        for v in range(1, VERSIONS + 1)
    }
    monitor = (
        ray.remote(MonitorActor)
        .options(max_concurrency=4, num_cpus=0)
        .remote(workflow, KnownReferences(known), workflow_metric(workflow))
    )
    root = Path(workflow.stores.root)
    Load(url, root, connections=CONNECTIONS, seconds=2).samples()
    most = len(Load(url, root, connections=CONNECTIONS, seconds=5).samples()) / 5
    replicas = broadcast(app_name(workflow), "served", deadline=time.monotonic() + 30)
    pids = {f"replica_{i}": int(s.replica.rsplit(":", 1)[1]) for i, s in enumerate(replicas)}
    pids["monitor"] = ray.get(monitor.pid.remote())
    load = Load(url, root, connections=CONNECTIONS, seconds=seconds, rate=SHARE * most)
    reports = Reports(url)
    start = time.monotonic()
    samples: list[tuple[float, dict[str, tuple[float, int]]]] = []
    swaps, due = 0, start + SWAP_S
    while time.monotonic() < start + seconds - 1:
        if time.monotonic() >= due:
            due += SWAP_S
            version = registry.version(str(int(registry.resolve(CHAMPION).version) % VERSIONS + 1))
            swap(app_name(workflow), version, record=lambda v=version: registry.point(CHAMPION, v.version))  # type: ignore[misc]
            swaps += 1
        samples.append((time.monotonic() - start, look(pids)))
        print(round(samples[-1][0]), samples[-1][1], file=sys.stderr, flush=True)
        time.sleep(LOOK_S)
    reports.end()
    answered = load.samples()
    ray.shutdown()
    return {
        "minutes": round(seconds / 60, 1),
        "requests": len(answered) + reports.made,
        "failed": sum(s[2] != 200 for s in answered) + reports.failed,
        "statuses": {str(status): count for status, count in Counter(s[2] for s in answered).items()},
        "swaps": swaps,
        "rps": round(len(answered) / seconds, 1),
        "most_rps": round(most, 1),
        **trends([(t, one) for t, one in samples if t >= SETTLE * seconds]),
    }


def trends(late: list[tuple[float, dict[str, tuple[float, int]]]]) -> dict[str, Any]:
    """Return how each process' memory and open files grew over the looks, and whether none did."""
    times, found = np.array([t for t, _ in late]), dict[str, Any](is_flat=True, fd_growth=0)
    for name in late[0][1]:
        memory = np.array([one[name][0] for _, one in late])
        rise, error = slope(times, memory)
        over_run = rise * (times[-1] - times[0])
        found[name] = {
            "mb": round(float(memory.mean()), 1),
            "slope_mb_per_h": round(3600 * rise, 3),
            "noise_mb_per_h": round(3600 * error, 3),
            "fds": [late[0][1][name][1], late[-1][1][name][1]],
        }
        found["is_flat"] &= rise <= 2 * error or over_run < 0.01 * memory.mean()
        found["fd_growth"] = max(found["fd_growth"], late[-1][1][name][1] - late[0][1][name][1])
    found["is_flat"] = bool(found["is_flat"])
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    workflow = Workflow(
        name="bench",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late"),
        serving=ServingSettings(port=free_ports(1)[0], replicas=2),
        monitor=MonitorSettings(window=parse_duration("10s"), horizon=parse_duration("60s")),
        stores=StoreSettings(root=str(folder / "root")),
    )
    os.environ.update(serve_env(workflow.serving))
    os.environ["RAY_AUTH_MODE"] = "disabled"
    try:
        found = soak(workflow, folder, 60 * args.minutes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
