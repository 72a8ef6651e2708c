"""Model swaps beneath traffic: 70 % of what the replicas can do, a new version every five seconds.

``python benchmarks/swap.py [--seconds 60] [--every 5] [--connections 32]`` starts a Ray cluster and a
registry (MLflow on SQLite) on this machine. With two replicas and then with one it measures how many requests
a second they answer at most, then sends 70 % of that, each request at its own time, and swaps as a retraining
does: prepare on all replicas, move the alias, commit. ``p99_ratio`` is the worse of the two cases: the p99 of
the requests that were due within a second of a swap's start over the p99 of those before the first one. A
request that has to wait for a connection is counted from when it was due. ``alias_to_live_s`` is the longest
time from moving the alias by another hand, with no swap, to every replica serving the version.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from load import quantile  # noqa: E402 the folder is a set of scripts

from raywf.core.records import Verdict  # noqa: E402
from raywf.core.settings import ServingSettings, SpineSettings, StoreSettings, Workflow  # noqa: E402
from raywf.registry.registry import CHAMPION, Lineage, Registry, open_registry  # noqa: E402
from raywf.serving.environment import free_ports, serve_env  # noqa: E402
from raywf.testing import SMALL_ROW, small_bundle  # noqa: E402

VERSIONS, SHARE, QUIET_S, NEAR_S = 4, 0.7, 10.0, 1.0
VERDICT = Verdict(
    outcome="accept",
    rows=1,
    metric="roc_auc",
    challenger=1.0,
    champion=None,
    against="baseline",
    checks=(),
    loss=0.1,
    reason="a benchmark",
)


def load(url: str, *more: str, connections: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "load.py"), url, "--connections", str(connections)]
    command += ["--seconds", str(seconds), "--body", json.dumps({"features": dict(SMALL_ROW)}), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(f"the load client ended with {process.returncode}")
    return dict(json.loads(text.strip().splitlines()[-1]))


def make_registry(workflow: Workflow, folder: Path, rounds: int) -> Registry:
    """Register a few versions of a small model; the first one is champion."""
    from raywf.registry.client import connect

    registry = open_registry(workflow)
    client = connect(registry.uri)
    experiment = client.create_experiment(workflow.name, artifact_location=f"{folder}/artifacts")
    for i in range(VERSIONS):
        lineage = Lineage(
            run_id=client.create_run(experiment).info.run_id,
            sweep_id="",
            decision_id=f"d{i}",
            code_version="",
            parent=None,
            cost_usd=0.0,
            metrics={},
        )
        registry.register(small_bundle(folder / f"bundle-{i}", seed=i, rounds=rounds), lineage, VERDICT)
    registry.point(CHAMPION, "1")
    return registry


def swaps_under_load(
    workflow: Workflow, registry: Registry, url: str, args: argparse.Namespace
) -> dict[str, Any]:
    from raywf.serving.deploy import app_name
    from raywf.serving.swap import swap

    finish(load(url, connections=args.connections, seconds=2))
    most = finish(load(url, connections=args.connections, seconds=5))["rps"]
    out = Path(workflow.stores.root) / "samples.jsonl"
    more = ("--rate", str(SHARE * most), "--out", str(out))
    process = load(url, *more, connections=args.connections, seconds=args.seconds)
    start = time.time()
    instants, reports = [], []
    due = start + QUIET_S
    while due < start + args.seconds - NEAR_S:
        time.sleep(max(0.0, due - time.time()))
        due += args.every
        version = registry.version(str((int(registry.resolve(CHAMPION).version)) % VERSIONS + 1))
        instants.append(time.time())
        reports.append(
            swap(app_name(workflow), version, record=lambda v=version: registry.point(CHAMPION, v.version))  # type: ignore[misc]
        )
    summary = finish(process)
    samples = [json.loads(line) for line in out.read_text().splitlines()]
    first = samples[0][0]
    before = [s[1] for s in samples if first + 2 <= s[0] < instants[0]]
    near = [s[1] for s in samples if any(t <= s[0] < t + NEAR_S for t in instants)]
    return {
        "requests": summary["requests"],
        "failed": summary["failed"],
        "first_failure": summary["first_failure"],
        "swaps": len(reports),
        "rps": summary["rps"],
        "most_rps": most,
        "prepare_s": round(max(r.prepare_s for r in reports), 3),
        "commit_s": round(max(r.commit_s for r in reports), 3),
        "p99_before_ms": round(quantile(before, 0.99) * 1e3, 2),
        "p99_near_swaps_ms": round(quantile(near, 0.99) * 1e3, 2),
        "p99_ratio": round(quantile(near, 0.99) / quantile(before, 0.99), 3),
        "versions": sorted({s[4] for s in samples if s[2] == 200}),
    }


def alias_to_live_s(workflow: Workflow, registry: Registry) -> float:
    """Return the longest of three times from moving the alias to every replica serving the version."""
    from raywf.serving.deploy import app_name
    from raywf.serving.swap import broadcast

    found = []
    for _ in range(3):
        version = str(int(registry.resolve(CHAMPION).version) % VERSIONS + 1)
        registry.point(CHAMPION, version)
        start = time.monotonic()
        while {s.version for s in broadcast(app_name(workflow), "served", deadline=start + 60)} != {version}:
            time.sleep(0.05)
        found.append(time.monotonic() - start)
    return round(max(found), 2)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--replicas", default="2,1")
    parser.add_argument("--rounds", type=int, default=200, help="trees of the model")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    workflow = Workflow(
        name="bench",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late"),
        serving=ServingSettings(port=free_ports(1)[0]),
        stores=StoreSettings(root=str(folder / "root")),
    )
    os.environ.update(serve_env(workflow.serving))
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cases: dict[str, Any] = {}
    try:
        registry = make_registry(workflow, folder, args.rounds)
        import ray

        from raywf.serving.deploy import deploy, undeploy

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        for replicas in map(int, args.replicas.split(",")):
            here = replace(workflow, serving=replace(workflow.serving, replicas=replicas))
            url = deploy(here, registry)
            cases[f"replicas_{replicas}"] = swaps_under_load(here, registry, url, args)
            cases[f"replicas_{replicas}"]["alias_to_live_s"] = alias_to_live_s(here, registry)
            print(replicas, cases[f"replicas_{replicas}"], file=sys.stderr, flush=True)
            undeploy(here)
        ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    total = {name: sum(case[name] for case in cases.values()) for name in ("requests", "failed", "swaps")}
    worst = {
        name: max(case[name] for case in cases.values())
        for name in ("p99_ratio", "commit_s", "alias_to_live_s")
    }
    print(json.dumps(total | worst | cases))


if __name__ == "__main__":
    main()
