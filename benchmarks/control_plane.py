"""What a cluster's size costs: a snapshot by its partitions, a swap by its replicas, a log by its segments.

``python benchmarks/control_plane.py [--partitions 25,100,200] [--replicas 1,4,12] [--segments 200,2000]``
makes each larger in turn on this machine, where all share its cores, and fits a line by least squares:
seconds at nothing (``base``) and milliseconds for one more (``slope_ms``).

``partition_ms``: a snapshot of a table whose every partition holds 500 rows, joined with a view by shuffle,
all steps. ``replica_ms``: a swap, from the first prepare to the last commit; ``ask_ms``: asking every replica
what it serves; ``replica_mb``: a replica's own memory. ``resolve_ms``: CPU time of one question to the
registry (MLflow on SQLite, in process), which every replica asks once in ``serving.alias_poll_s``;
``run_ms``: wall time of a trial's run in MLflow there.
``segment_ms``: bringing a log's mirror up to date where nothing is new, the store being a server with the
S3 API on this machine (moto's). Exits 0 only if every swap reached every replica.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import psutil  # noqa: E402
from swap import make_registry, make_workflow  # noqa: E402 the folder is a set of scripts

from raywf.core.loader import load_workflow  # noqa: E402
from raywf.core.records import Snapshot, Sweep  # noqa: E402
from raywf.core.settings import Workflow  # noqa: E402
from raywf.core.store import Store  # noqa: E402
from raywf.registry.registry import CHAMPION, Registry  # noqa: E402
from raywf.search.portfolio import make_trial  # noqa: E402
from raywf.serving.environment import serve_env  # noqa: E402

S3 = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
MOST_PARTITIONS, PARTITION_ROWS, SHOPS, TIMES = 200, 500, 40, 5
SNAPSHOT = """\
name: shops
task: binary
spine: {path: spine, label: y, keys: [id], event_time: at}
features: {views: {stock: {path: stock.csv, keys: [shop], event_time: day}}}
"""


def line(sizes: list[int], seconds: list[float]) -> dict[str, Any]:
    """Return a line through the points."""
    slope, base = np.polyfit(sizes, seconds, 1)
    return {
        "sizes": sizes,
        "seconds": [round(s, 3) for s in seconds],
        "base": round(float(base), 3),
        "slope_ms": round(1e3 * float(slope), 2),
    }


def snapshot_s(folder: Path, partitions: int) -> float:
    """Return the seconds that a snapshot of so many partitions takes."""
    from raywf.snapshots import join, sources
    from raywf.snapshots.assemble import Limits
    from raywf.snapshots.build import build_snapshot

    rng, rows = np.random.default_rng(0), partitions * PARTITION_ROWS
    start = pd.Timestamp("2026-01-01")
    spine = pd.DataFrame(
        {
            "id": np.arange(rows),
            "shop": rng.integers(0, SHOPS, rows),
            "at": start + pd.to_timedelta(rng.uniform(0, 300, rows), unit="D"),
            "x": rng.normal(size=rows),
            "y": rng.integers(0, 2, rows),
        }
    )
    days = pd.date_range(start, periods=300)
    stock = pd.DataFrame({"shop": np.repeat(np.arange(SHOPS), 300), "day": np.tile(days, SHOPS)})
    stock["held"] = rng.normal(size=len(stock))
    (folder / "spine").mkdir(parents=True)
    for part in range(partitions):
        here = spine.iloc[part * PARTITION_ROWS : (part + 1) * PARTITION_ROWS]
        here.to_parquet(folder / "spine" / f"{part:05}.parquet", index=False)
    stock.to_csv(folder / "stock.csv", index=False)
    (folder / "workflow.yaml").write_text(SNAPSHOT)
    size = sum(path.stat().st_size for path in (folder / "spine").iterdir())
    sources.BLOCK_BYTES = size // partitions + 1  # as many blocks as a table of that many times 32 MB has
    join.PART_BYTES = 4 * sources.BLOCK_BYTES  # and as many buckets, of 128 MB
    start_s = time.monotonic()
    workflow = load_workflow(folder / "workflow.yaml", environ={})
    found = build_snapshot(workflow, limits=Limits(broadcast_bytes=0, gather_bytes=0))
    if found.rows != rows:
        raise RuntimeError(f"{found.rows} of {rows} rows")
    return time.monotonic() - start_s


def replicas_s(workflow: Workflow, registry: Registry, count: int) -> dict[str, float]:
    """Return the medians of what a swap and a question to all replicas take, and a replica's memory."""
    from raywf.serving.deploy import app_name, deploy, undeploy
    from raywf.serving.swap import broadcast, swap

    here = replace(workflow, serving=replace(workflow.serving, replicas=count))
    start = time.monotonic()
    deploy(here, registry)
    found: dict[str, list[float]] = {"deploy_s": [time.monotonic() - start], "swap": [], "ask": []}
    for turn in range(TIMES):
        version = registry.version(str(turn % 2 + 2))
        report = swap(
            app_name(here),
            version,
            record=lambda v=version: registry.point(CHAMPION, v.version),  # type: ignore[misc]
        )
        if len(report.replicas) != count:
            raise RuntimeError(f"{len(report.replicas)} of {count} replicas")
        found["swap"].append(report.prepare_s + report.commit_s)
        asked = time.monotonic()
        served = broadcast(app_name(here), "served", deadline=asked + 60)
        found["ask"].append(time.monotonic() - asked)
        if {status.version for status in served} != {version.version}:
            raise RuntimeError(f"{served} instead of {version.version}")
    found["replica_mb"] = [p.memory_full_info().uss / 1e6 for p in psutil.process_iter() if _is_replica(p)]
    undeploy(here)
    return {name: median(values) for name, values in found.items()}


def _is_replica(process: psutil.Process) -> bool:
    try:
        return any("ServeReplica" in part for part in process.cmdline())
    except psutil.Error:
        return False


def resolve_ms(registry: Registry, times: int = 200) -> float:
    """Return the CPU time of asking the registry who is champion."""
    start = time.process_time()
    for _ in range(times):
        registry.resolve(CHAMPION)
    return round(1e3 * (time.process_time() - start) / times, 2)


def run_ms(workflow: Workflow, trials: int = 100) -> float:
    """Return the time that a trial of a sweep takes to be logged, with four parameters and five folds."""
    from raywf.registry.runs import log_sweep

    params = {"num_leaves": 31, "learning_rate": 0.1, "min_data_in_leaf": 20, "extra_trees": True}
    trial = replace(make_trial("lightgbm", params), status="done", fold_losses=(0.5,) * 5, score=0.5)
    snapshot = Snapshot(
        id="bench",
        workflow=workflow.name,
        uri="",
        rows=1,
        columns=(),
        task="binary",
        classes=("no", "yes"),
        label="late",
        has_time=False,
        window=None,
        as_of=None,
        digest="",
        profile=(),
        sources=(),
    )
    sweep = Sweep(
        id="bench",
        snapshot_id="bench",
        metric="roc_auc",
        greater_is_better=True,
        trials=tuple(replace(trial, id=f"lightgbm-{i}") for i in range(trials)),
        members=(),
        score=0.5,
        calibrated=False,
        budget_s=1,
        spent_s=1,
        cpu_s=1,
    )
    start = time.monotonic()
    log_sweep(workflow, snapshot, sweep)
    return round(1e3 * (time.monotonic() - start) / trials, 2)


@contextmanager
def object_store() -> Iterator[str]:
    """Yield a bucket's URI of a server with the S3 API on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    os.environ.update(S3 | {"AWS_ENDPOINT_URL": address})
    boto3.client("s3").create_bucket(Bucket="bench")
    try:
        yield "s3://bench/log"
    finally:
        server.stop()


def segments_s(root: str, folder: Path, count: int) -> float:
    """Return the seconds of looking for what is new in a log of so many segments."""
    from raywf.outcomes.shipping import Mirror, prefix

    store, workflow = Store(root), f"log{count}"
    for number in range(count):
        store.write(f"{prefix(workflow)}/{number:020}-bench.jsonl", b"\n")
    mirror = Mirror(store, folder / workflow, workflow)
    mirror.refresh(at_once=True)
    found = []
    for _ in range(TIMES):
        start = time.monotonic()
        mirror.refresh(at_once=True)
        found.append(time.monotonic() - start)
    return median(found)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("partitions", "25,100,200"), ("replicas", "1,4,12"), ("segments", "200,2000")):
        parser.add_argument(f"--{name}", default=default, type=lambda t: [int(n) for n in t.split(",")])
    args = parser.parse_args()
    if max(args.partitions) > MOST_PARTITIONS:
        parser.error(f"more than {MOST_PARTITIONS} partitions are of larger blocks: they cannot be so small")
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    workflow = make_workflow(folder)
    os.environ.update(serve_env(workflow.serving))
    try:
        import ray

        registry = make_registry(workflow, folder, rounds=50)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        snapshot_s(folder / "warm", 2)
        built = line(args.partitions, [snapshot_s(folder / f"s{n}", n) for n in args.partitions])
        print("snapshot", built, file=sys.stderr, flush=True)
        told = [replicas_s(workflow, registry, n) for n in args.replicas]
        print("replicas", told, file=sys.stderr, flush=True)
        asked, logged = resolve_ms(registry), run_ms(workflow)
        ray.shutdown()
        with object_store() as root:
            listed = line(args.segments, [segments_s(root, folder, n) for n in args.segments])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    swaps, asks = (line(args.replicas, [one[name] for one in told]) for name in ("swap", "ask"))
    found = {
        "partition_ms": built["slope_ms"],
        "replica_ms": swaps["slope_ms"],
        "ask_ms": asks["slope_ms"],
        "replica_mb": round(told[-1]["replica_mb"], 1),
        "resolve_ms": asked,
        "run_ms": logged,
        "segment_ms": listed["slope_ms"],
        "snapshot": built,
        "swap": swaps,
        "ask": asks,
        "deploy_s": [round(one["deploy_s"], 1) for one in told],
        "log": listed,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
