"""How busy a search keeps the slots of a cluster: many trials of a tenth of a second on 32 nodes of one CPU.

``python benchmarks/search_slots.py [--trials 1000] [--nodes 32]`` starts a head and so many nodes, each a
raylet of its own, on this one machine, and drives trials of a model that sleeps through
`raywf.search.tuning.run_trials`, ledger included, as a search does. Workers take minutes to start where they
share a few cores, which on a real cluster each has for itself: a first trial a slot, of another model, waits
until all are up, and the clock begins there. The model writes when each of its sleeps began and ended.
`busy_share` is the share of the slots' time, each from its first sleep to the end of the last trial of all,
that was slept; `busy_share_all_up` counts from the moment when the last slot had started. `per_trial_ms` is
the time from the first sleep to the end of all by the number of trials, `driver_mb` the driver's memory when
that time begins, after a quarter of it and at its end. What each raylet and its two agents do by
the clock is done more rarely (of 33 idle nodes 0.25 of a core and not 0.45): a real node has CPUs of its own
for it. Exits 0 only if all trials ended well. Needs about 8 GB of memory.

``--nodes 64 --one-machine --seconds 0.01`` has as many workers on one node: what the control plane takes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - so written; all nodes see one memory

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster

from raywf.core.codec import decode
from raywf.core.metrics import METRICS
from raywf.core.records import Trial
from raywf.core.settings import SearchSettings
from raywf.models.family import Rows
from raywf.search.data import Fold, SearchData
from raywf.search.folds import TrialPlan
from raywf.search.ledger import Ledger
from raywf.search.own import find_families
from raywf.search.portfolio import make_trial
from raywf.search.queue import planned
from raywf.search.tuning import run_trials

ROWS, STORE_BYTES = 200, 80_000_000
START_S, SEARCH_S = 420.0, 300.0
RARELY = {  # what a node does by the clock, in milliseconds
    "REPORTER_UPDATE_INTERVAL_MS": 60_000,
    "RAY_metrics_report_interval_ms": 60_000,
    "RAY_object_manager_timer_freq_ms": 1_000,
    "RAY_kill_idle_workers_interval_ms": 2_000,
    "RAY_local_fs_monitor_interval_ms": 2_000,
    "RAY_event_stats_print_interval_ms": 0,
    "RAY_raylet_check_for_unexpected_worker_disconnect_interval_ms": 10_000,
}
WAIT_S = 0.02  # a longer gap between two trials of a slot is a wait for the driver
MODEL = '''
import os, time
from pathlib import Path
import numpy as np

class Sleep:
    """Sleeps, and writes down when."""

    def __init__(self, folder, seconds, number):
        self.file, self.seconds = Path(folder) / f"{os.getpid()}.txt", seconds

    def fit(self, X, y):
        start = time.time()
        time.sleep(self.seconds)
        with self.file.open("a") as file:
            file.write(f"{start} {time.time()}\\n")

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)

    def save(self, folder):
        pass

    def load(self, folder):
        pass

class Wait(Sleep):
    """Waits until all slots are up."""

    def __init__(self, folder, slots, until, number):
        self.folder, self.slots, self.until = Path(folder), slots, until

    def fit(self, X, y):
        (self.folder / f"{os.getpid()}.txt").touch()
        while len(list(self.folder.glob("*.txt"))) < self.slots and time.time() < self.until:
            time.sleep(0.25)
'''


def small_data() -> SearchData:
    rows = np.arange(ROWS)
    return SearchData(
        rows=Rows(np.zeros((ROWS, 4), np.float32), (rows % 2).astype(np.float64)),
        times=None,
        known=None,
        folds=(Fold(fit=rows[:100], score=rows[100:]),),
        gate=rows[:0],
        rest=rows,
        task="binary",
        n_classes=2,
        sizes=(0, 0, 0, 0),
    )


def start_nodes(count: int, *, one_machine: bool) -> Cluster:
    """Start a head without CPUs, and the nodes one after the other; or one with all the CPUs."""
    os.environ.update({name: str(ms) for name, ms in RARELY.items()})
    head = {"num_cpus": 0, "object_store_memory": 2 * STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    if one_machine:
        cluster.add_node(num_cpus=count, object_store_memory=2 * STORE_BYTES)
    for number in range(0 if one_machine else count):
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        print(f"node {number + 1} of {count}", file=sys.stderr)
    cluster.wait_for_nodes()
    return cluster


@contextmanager
def memory() -> Iterator[list[tuple[float, float]]]:
    """Yield this process's memory in MB by time, which grows a line every tenth of a second."""
    found: list[tuple[float, float]] = []
    ended, process = threading.Event(), psutil.Process()

    def look() -> None:
        while not ended.wait(0.1):
            found.append((time.time(), process.memory_info().rss / 1e6))

    thread = threading.Thread(target=look)
    thread.start()
    yield found
    ended.set()
    thread.join()


def memory_at(found: list[tuple[float, float]], begun: float, trials_s: float) -> list[float]:
    """Return the memory at the begin, after a quarter and at the end of the trials."""
    times, sizes = zip(*found, strict=True)
    return [round(float(np.interp(begun + part * trials_s, times, sizes)), 1) for part in (0, 0.25, 1)]


def run_search(folder: Path, options: argparse.Namespace) -> list[Trial]:
    """Run the trials; return those that are done and in the ledger."""
    (folder / "slots").mkdir()
    (folder / "sleep.py").write_text(MODEL)
    models = {n.lower(): {"code": f"{folder}/sleep.py:{n}", "trust": True} for n in ("Sleep", "Wait")}
    settings = decode(SearchSettings, {"trials": options.trials, "models": models})
    where = {"folder": str(folder / "slots")}
    until = {"slots": options.nodes, "until": time.time() + START_S}
    trials = [make_trial("wait", {**where, **until, "number": i}) for i in range(options.nodes)]
    for number in range(options.trials):
        trials.append(make_trial("sleep", {**where, "seconds": options.seconds, "number": number}))
    end = time.time() + START_S + SEARCH_S
    ledger = Ledger(str(folder / "store"), "slots")
    plan = TrialPlan(
        metric=METRICS["brier"],
        threads=1,
        deadline=end,
        last_moment=end,
        seed=0,
        ledger=ledger,
        families=find_families(settings, folder=str(folder / "teams")),
    )
    wanted = planned(trials, fold_rows=(100,), deadline=end, slots=options.nodes)
    shared = ray.put(small_data())
    found, _nodes = run_trials(shared, wanted, plan, settings=settings, progress=lambda _trial: None)
    for trial in found:
        if trial.status != "done":
            print(f"{trial.id} {trial.status}: {trial.error}", file=sys.stderr)
    found = [t for t in found if t.family == "sleep"]
    return [t for t in found if t.status == "done" and ledger.find(t.id) is not None]


def shares(folder: Path) -> dict[str, Any]:
    """Return what the slots' own times tell."""
    slots = [np.loadtxt(path, ndmin=2) for path in sorted((folder / "slots").glob("*.txt"))]
    slots = [times for times in slots if len(times)]
    last = max(float(times[-1, 1]) for times in slots)
    starts = [float(times[0, 0]) for times in slots]
    all_up = max(starts)

    def share(begins: list[float]) -> float:
        spent = sum(last - begin for begin in begins)
        pairs = zip(slots, begins, strict=True)
        slept = sum(float(np.clip(t[:, 1] - np.maximum(t[:, 0], begin), 0, None).sum()) for t, begin in pairs)
        return round(slept / spent, 3)

    spent = sum(last - begin for begin in starts)
    gaps = np.concatenate([times[1:, 0] - times[:-1, 1] for times in slots])
    idle = {
        "beside": float(gaps[gaps < WAIT_S].sum()),
        "waiting": float(gaps[gaps >= WAIT_S].sum()),
        "at_the_end": sum(last - float(times[-1, 1]) for times in slots),
    }
    return {
        "busy_share": share(starts),
        "idle_shares": {name: round(one / spent, 3) for name, one in idle.items()},
        "waits": int((gaps >= WAIT_S).sum()),
        "busy_share_all_up": share([all_up] * len(slots)),
        "slots": len(slots),
        "trials": int(sum(len(times) for times in slots)),
        "trials_s": round(last - min(starts), 2),
        "begun": min(starts),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="trials in all")
    parser.add_argument("--nodes", type=int, default=32, help="nodes of one CPU")
    parser.add_argument("--one-machine", action="store_true", help="all CPUs are one node's")
    parser.add_argument("--seconds", type=float, default=0.1, help="what a trial takes, in seconds")
    options = parser.parse_args()
    begun = time.time()
    cluster = start_nodes(options.nodes, one_machine=options.one_machine)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    nodes_s = time.time() - begun
    with tempfile.TemporaryDirectory(prefix="rwf-slots-") as name:
        start = time.time()
        with memory() as sizes:
            done = run_search(Path(name), options)
        wall_s = time.time() - start
        found = shares(Path(name))
        found["per_trial_ms"] = round(1e3 * found["trials_s"] / max(1, found["trials"]), 2)
        found["driver_mb"] = memory_at(sizes, found["begun"], found["trials_s"])
        ray.shutdown()  # before the folder goes: workers may still write there
    cluster.shutdown()
    found["started_s"] = round(found.pop("begun") - start, 2)
    times = {"nodes_s": round(nodes_s, 1), "wall_s": round(wall_s, 2)}
    print(json.dumps({**found, **times, "done": len(done), "nodes": options.nodes}))
    return 0 if len(done) == options.trials and found["slots"] == options.nodes else 1


if __name__ == "__main__":
    sys.exit(main())
