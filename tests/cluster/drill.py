"""What the drill is made of: a cluster that serves flights, callers who never try again, and its losses."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from network import Network, Place
from nodes import Gcs, RayCluster, RayNode

from raywf.core.journal import Journal
from raywf.demo.flights import load_year, write_tables
from raywf.serving.environment import EVERY_NODE, free_ports

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from command_line import post, until

TRIALS, FOLDS, BUDGET_S = 8, 2, 180
FIRST_AS_OF = "2013-07-01T00:00:00Z"
OUTAGE_S = 5.0
SNAPSHOT_TASKS = ("ray::Read", "ray::MapBatches", "ray::scan_block", "ray::_prepare_view", "ray::_map_task")
TRIAL_TASKS, REPLICAS = ("ray::ResourceTrainable.train",), ("ray::ServeReplica",)
_CALLERS, _PAUSE_S, _PATIENCE_S = 4, 0.15, 10.0
_LOOK_S = 0.05
_REMARK_BYTES = 1_200  # a row, so that the table is large enough to be read by several tasks


class ServingCluster(RayCluster):
    """A cluster whose nodes may serve: with the variables that `raywf cluster render` gives each node."""

    def __init__(self, folder: Path, network: Network) -> None:
        self._fallback = free_ports(2)
        super().__init__(folder, network=network, keeps_state=True)

    def node_environ(self, place: Place) -> dict[str, str]:
        folder = self.folder / "haproxy"  # with a folder for each node below
        names = {"CONFIG_FILE_LOC": "haproxy.cfg", "SOCKET_PATH": "admin.sock", "SERVER_STATE_FILE": "state"}
        paths = {f"RAY_SERVE_HAPROXY_{key}": str(folder / name) for key, name in names.items()}
        paths["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"] = str(folder)
        environ = {**EVERY_NODE, **paths, "RAY_SERVE_HAPROXY_NBTHREAD": "1"}
        return environ if place.namespace else environ | self._ports()

    def _ports(self) -> dict[str, str]:
        """Return ports of a node's own, where all share one address; the first two are the head's alone."""
        names = ("HAPROXY_METRICS_PORT", "HAPROXY_STATS_PORT", "WORKER_PROXY_HTTP_PORT")
        fallback = ("FALLBACK_PROXY_HTTP_PORT", "FALLBACK_PROXY_GRPC_PORT")
        pairs = (*zip(fallback, self._fallback, strict=True), *zip(names, free_ports(3), strict=True))
        return {f"RAY_SERVE_{name}": str(port) for name, port in pairs}


def write_flights(folder: Path, *, port: int) -> list[dict[str, Any]]:
    """Write the demo's tables and workflow, the flights as a file a month; return flights to ask about.

    Flights have remarks, which are no feature: they make a table that several tasks read.
    """
    year = load_year()
    path = write_tables(year, folder)
    (folder / "data" / "flights").mkdir()
    for month, flights in year.flights.groupby(year.flights.departs_at.dt.month):
        remarks = [os.urandom(_REMARK_BYTES // 2).hex() for _ in range(len(flights))]
        file = folder / "data" / "flights" / f"2013-{month:02}.parquet"
        flights.assign(remarks=remarks).to_parquet(file, index=False)
    told = yaml.safe_load(path.read_text())
    told["spine"]["path"] = "data/flights"
    told["features"]["exclude"].append("remarks")
    told["search"] = {
        "budget_s": BUDGET_S,
        "trials": TRIALS,
        "folds": FOLDS,
        "families": ["lightgbm", "xgboost"],
    }
    told["serving"] = {"replicas": 2, "host": "0.0.0.0", "open_to_all": True, "port": port}
    told["rollout"] = {"watch": "0s"}
    told["retrain"] = {"cooldown": "365d", "look": None}  # nothing but what is asked for
    told["cluster"] = {"pools": True}
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    asked = pd.read_parquet(folder / "data" / "traffic.parquet").sort_values("departs_at").tail(20_000)
    return [_plain(row) for row in asked.to_dict("records")]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it."""
    found = {}
    for name, value in row.items():
        if isinstance(value, pd.Timestamp):
            found[name] = None if value is pd.NaT else value.isoformat()
        elif isinstance(value, np.generic):
            found[name] = value.item()
        else:
            found[name] = None if value is pd.NA else value
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: when it was asked and how long it took; without a problem it was answered."""

    id: str
    at: float
    seconds: float
    problem: str = ""


class Callers:
    """Ask about one flight after the other, a few times a second each, and never try again."""

    def __init__(self, url: str, flights: Sequence[dict[str, Any]]) -> None:
        self.url, self.asked = url, list[Asked]()
        names = [column["name"] for column in _get(f"{url}/v1/model")["columns"]]
        self._bodies = [
            {"time": flight["departs_at"], "features": {name: flight.get(name) for name in names}}
            for flight in flights
        ]
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(_CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._ended.wait(_PAUSE_S):
            number = next(self._numbers)
            body = {"id": f"asked-{number:06}", **self._bodies[number % len(self._bodies)]}
            at, problem = time.monotonic(), ""
            try:
                status, answer = post(f"{self.url}/v1/predict", body, timeout_s=_PATIENCE_S)
                problem = "" if status == 200 else f"{status}: {json.dumps(answer)[:200]}"
            except OSError as err:
                problem = f"{type(err).__name__}: {err}"
            self.asked.append(Asked(body["id"], at, time.monotonic() - at, problem))

    def end(self) -> None:
        """Stop after the present questions."""
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=2 * _PATIENCE_S)

    @property
    def failed(self) -> list[Asked]:
        """Those that had no answer, or another one than 200."""
        return [one for one in self.asked if one.problem]

    def longest_gap_s(self, since: float, until: float) -> float:
        """Return the longest time without an answer within a span."""
        ends = sorted(one.at + one.seconds for one in self.asked if not one.problem)
        within = [since, *(end for end in ends if since < end < until), until]
        return max(b - a for a, b in itertools.pairwise(within))


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that was taken away, from when to when it was away; what the job had reached by then."""

    what: str
    at: float
    back: float
    stages: frozenset[str]
    folds: dict[str, tuple[bytes, int]] = field(repr=False)


class Drill:
    """The story: a first model, served; a retraining as a job, with losses in each of its stages."""

    def __init__(self, cluster: ServingCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.root = folder / ".raywf"
        (port,) = free_ports(1)
        self.flights = write_flights(folder, port=port)
        cluster.wait_for(1)
        self.pools = {name: self._pool(name) for name in ("train", "serve")}
        self.losses: list[Loss] = []
        self.first_sweeps = set[str]()

    def _pool(self, name: str) -> list[RayNode]:
        """Start two nodes for a kind of work, one after the other: each start wants a core for itself."""
        found = []
        for _ in range(2):
            found.append(self.cluster.add_worker(f"pool={name}"))
            self.cluster.wait_until_up(found[-1])
        return found

    def begin(self) -> None:
        """Train the first model on half of the year, and serve it to callers."""
        small = ("--set", "search.budget_s=25", "--set", "search.trials=2")
        first = self.on_head("run", "--as-of", FIRST_AS_OF, *small)
        assert first["status"] == "promoted", first["verdict"]
        self.first_sweeps = {path.name for path in self.root.glob("sweeps/*")}
        at = self.on_head("serve", "up")["url"].rpartition(":")[2]
        self.callers = Callers(f"http://{self.cluster.head.place.address}:{at}", self.flights)
        self.began = time.monotonic()

    def retrain(self) -> None:
        """Submit a retraining as from a laptop, and lose something in each of its stages."""
        command = self.cluster.command(self.folder, "job", "submit", "retrain", "--wait", "--json")
        with (self.folder / "job.out").open("w") as out, (self.folder / "job.err").open("w") as err:
            job = subprocess.Popen(command, env=self.cluster.environ, cwd=self.folder, stdout=out, stderr=err)
        try:
            self._lose("a node in the snapshot", "train", SNAPSHOT_TASKS)
            self._lose("a node in the search", "train", TRIAL_TASKS, lambda: len(self.folds()) >= 1)
            kept = len(self.folds())
            until(lambda: len(self.folds()) > kept, "the search's next fold", seconds=90)
            self._await_pool("train")
            self._lose_gcs()
            self.job_exit = job.wait(timeout=400)
        finally:
            job.kill()
        self.job = json.loads((self.folder / "job.out").read_text() or "{}")

    def lose_replica(self) -> None:
        """Lose a node with a replica under the callers' questions, and wait until all is there again."""
        self._lose("a node in serving", "serve", REPLICAS)
        self._await_pool("serve")
        until(self._is_whole, "all replicas", seconds=120)
        asked = len(self.callers.asked)
        until(lambda: len(self.callers.asked) > asked + 50, "more answers")

    def on_head(self, *words: str) -> Any:
        """Run a command of the command line on the head's machine, and return its JSON."""
        cluster = self.cluster
        done = cluster.raywf(self.folder, *words, "--json", address=cluster.address, at=cluster.head)
        assert done.returncode == 0, f"raywf {' '.join(words)}: {done.stderr[-4000:]}"
        return json.loads(done.stdout)

    def folds(self) -> dict[str, tuple[bytes, int]]:
        """Return every fold that the retraining's search has kept, with the time at which it was written."""
        found = [
            p for p in self.root.glob("sweeps/*/trials/*/fold-*.npz") if p.parts[-4] not in self.first_sweeps
        ]
        return {f"{p.parent.name}/{p.name}": (p.read_bytes(), p.stat().st_mtime_ns) for p in found}

    def stages(self) -> frozenset[str]:
        """Return what the retraining has reached by its journal."""
        journal = Journal(str(self.root), "flights")
        asked = [d.id for d in journal.decisions() if d.reasons == ("raywf job submit",)]
        return frozenset(journal.stages(asked[0])) if asked else frozenset()

    @property
    def output(self) -> str:
        """What the job has printed, as the waiting command told it."""
        return (self.folder / "job.err").read_text()

    def say(self, text: str) -> None:
        """Print what happens, with the seconds since serving began."""
        print(f"{time.monotonic() - self.began:6.1f} s: {text}", flush=True)

    def _lose(
        self, what: str, pool: str, tasks: tuple[str, ...], is_time: Callable[[], bool] = lambda: True
    ) -> None:
        """Kill the first of a pool's nodes seen at such a task; another comes, as by an autoscaler."""
        self._await_pool(pool)
        nodes = self.pools[pool]
        found, task = self._at_work(nodes, tasks, is_time)
        stages, folds, at = self.stages(), self.folds(), time.monotonic()
        self.cluster.kill(found)
        self.losses.append(Loss(what, at, time.monotonic(), stages, folds))
        self.say(f"lost {what}, which was at {task[5:65]}; {len(folds)} folds are kept")
        nodes[nodes.index(found)] = self.cluster.add_worker(f"pool={pool}")

    def _await_pool(self, pool: str) -> None:
        for node in self.pools[pool]:
            self.cluster.wait_until_up(node)

    def _at_work(
        self, nodes: list[RayNode], tasks: tuple[str, ...], is_time: Callable[[], bool]
    ) -> tuple[RayNode, str]:
        deadline, seen = time.monotonic() + 120, set[str]()
        while time.monotonic() < deadline:
            for node in nodes if is_time() else ():
                titles = [title for title in node.titles() if title.startswith("ray::")]
                task = next((title for title in titles if title.startswith(tasks)), None)
                if task is not None:
                    return node, task
                seen.update(titles)
            time.sleep(_LOOK_S)
        raise AssertionError(f"no node was seen at {tasks} but at {sorted(seen)}: {self.output[-3000:]}")

    def _lose_gcs(self) -> None:
        gcs, stages, folds, at = Gcs(self.cluster.head), self.stages(), self.folds(), time.monotonic()
        gcs.kill()
        time.sleep(OUTAGE_S)  # how long it is away is what is shown, not waited for
        gcs.start()
        until(lambda: len(self.cluster.nodes()) >= 4, "the GCS's answer", seconds=60)
        self.losses.append(Loss("the head's GCS", at, time.monotonic(), stages, folds))
        self.say(
            f"the head's GCS is there again; {len(folds)} folds were kept before, {len(self.folds())} now"
        )

    def _is_whole(self) -> bool:
        words = ("serve", "status", "--json")
        at = {"address": self.cluster.address, "at": self.cluster.head}
        done = self.cluster.raywf(self.folder, *words, **at)
        if done.returncode != 0:  # who is asked may have been lost
            self.say(done.stderr.strip().rpartition("\n")[2])
            return False
        self.served = json.loads(done.stdout)
        states = [replica["ok"] for replica in self.served["replicas"]]
        return self.served["status"] == "RUNNING" and states == [True, True]
