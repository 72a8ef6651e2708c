"""Model swaps beneath traffic: 70 % of what the replicas can do, a new version every five seconds.

``python benchmarks/swap.py [--seconds 60] [--every 5] [--connections 32]`` starts a Ray cluster and a
registry (MLflow on SQLite) on this machine. With two replicas and then with one it measures how many requests
a second they answer at most, then sends 70 % of that, each request at its own time, and swaps as a retraining
does: prepare on all replicas, move the alias, commit. ``p99_ratio`` is the worse of the two cases: the p99 of
the requests that began within a second of a swap's start over the p99 of those before swaps, which is all
others: the quiet seconds of one run differ by half, so those before the first swap alone
(``p99_ratio_first``) are too few to compare with.
``alias_to_live_s`` is the longest time from moving the alias by another hand, with no swap, to every replica
serving the version. The requests come from h2load (``apt install nghttp2-client``), or else from `load.py`,
which takes half a core away from the replicas.
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
from raywf.core.serving_settings import ServingSettings  # noqa: E402
from raywf.core.settings import SpineSettings, StoreSettings, Workflow  # noqa: E402
from raywf.registry.registry import CHAMPION, Lineage, Registry, open_registry  # noqa: E402
from raywf.serving.environment import free_ports, serve_env  # noqa: E402
from raywf.testing import SMALL_ROW, small_bundle  # noqa: E402

VERSIONS, QUIET_S, WARM_S, NEAR_S = 4, 10.0, 2.0, 1.0
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


class Load:
    """Requests of one row from another process: h2load's where it is there, since it takes little CPU."""

    def __init__(self, url: str, folder: Path, *, connections: int, seconds: float, rate: float = 0) -> None:
        body, self._log = folder / "body.json", folder / "samples.log"
        body.write_text(json.dumps({"features": dict(SMALL_ROW)}))
        self._log.unlink(missing_ok=True)
        self._seconds, self._client = seconds, shutil.which("h2load") or "load.py"
        if self._client == "load.py":
            command = [sys.executable, str(HERE / "load.py"), url, "--seconds", str(seconds)]
            command += [
                "--connections",
                str(connections),
                "--body",
                body.read_text(),
                "--out",
                str(self._log),
            ]
            command += ["--rate", str(rate)] if rate else []
        else:
            command = [self._client, "--h1", f"-c{connections}", f"-D{seconds:g}", f"--log-file={self._log}"]
            command += ["-d", str(body), "-H", "content-type: application/json", f"{url}/v1/predict"]
            command += [f"--rps={rate / connections}"] if rate else []
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def samples(self) -> list[tuple[float, float, int]]:
        """Wait for the end; return each request's start, seconds and status, in the order of their starts."""
        if self._process.wait(timeout=self._seconds + 120) != 0:
            raise RuntimeError(f"{self._client} ended with {self._process.returncode}")
        lines = self._log.read_text().splitlines()
        if self._client == "load.py":
            return sorted((s[0], s[1], s[2]) for s in map(json.loads, lines))
        rows = (line.split("\t") for line in lines)
        return sorted((int(at) / 1e6, int(took) / 1e6, int(status)) for at, status, took in rows)


def make_workflow(folder: Path) -> Workflow:
    """Return a workflow that is only served, its stores below a folder."""
    return Workflow(
        name="bench",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late"),
        serving=ServingSettings(port=free_ports(1)[0]),
        stores=StoreSettings(root=str(folder / "root")),
    )


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

    root = Path(workflow.stores.root)
    at_once = {"connections": args.connections}
    Load(url, root, **at_once, seconds=2).samples()
    most = len(Load(url, root, **at_once, seconds=5).samples()) / 5
    load = Load(url, root, **at_once, seconds=args.seconds, rate=args.share * most)
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
    samples = load.samples()
    first = samples[0][0]
    early = [s[1] for s in samples if first + WARM_S <= s[0] < instants[0]]
    near = [s[1] for s in samples if any(t <= s[0] < t + NEAR_S for t in instants)]
    before = [
        s[1] for s in samples if first + WARM_S <= s[0] and not any(t <= s[0] < t + NEAR_S for t in instants)
    ]
    return {
        "requests": len(samples),
        "failed": sum(s[2] != 200 for s in samples),
        "swaps": len(reports),
        "rps": round(len(samples) / args.seconds, 1),
        "most_rps": round(most, 1),
        "prepare_s": round(max(r.prepare_s for r in reports), 3),
        "commit_s": round(max(r.commit_s for r in reports), 3),
        "p50_ms": round(quantile(before, 0.5) * 1e3, 2),
        "p99_before_ms": round(quantile(before, 0.99) * 1e3, 2),
        "p99_near_swaps_ms": round(quantile(near, 0.99) * 1e3, 2),
        "p99_ratio": round(quantile(near, 0.99) / quantile(before, 0.99), 3),
        "p99_ratio_first": round(quantile(near, 0.99) / quantile(early, 0.99), 3),
        "versions": sorted({r.version for r in reports} | {reports[0].previous}),
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
    parser.add_argument("--share", type=float, default=0.7, help="of what the replicas can do; 0: all of it")
    parser.add_argument("--replicas", default="2,1")
    parser.add_argument("--rounds", type=int, default=200, help="trees of the model")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    workflow = make_workflow(folder)
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
