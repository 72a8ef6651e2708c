"""Model swaps under load: requests a second at 1 and at N connections, then swaps while N connections ask.

``python benchmarks/swap_under_load.py [--seconds 20] [--connections 32] [--swaps 3]`` starts a Ray cluster
with two replicas and a LightGBM model on this machine. ``swap_p99_ratio`` is the worst swap's p99 (requests
that started within one second from the swap's start) over the p99 of the requests before the first swap;
``p99_quiet_seconds_ms`` are the seconds before it one by one, which show the machine's own noise, and
``swap_p99_ratio_by_second`` has their median below the line.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from load import quantile  # noqa: E402 the folder is a set of scripts

from raywf.core.settings import ServingSettings, SpineSettings, StoreSettings, Workflow  # noqa: E402
from raywf.serving.environment import free_ports, serve_env  # noqa: E402
from raywf.testing import SMALL_ROW, FolderSource, small_bundle  # noqa: E402


def load(url: str, out: Path, *, connections: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "load.py"), url, "--connections", str(connections)]
    command += [
        "--seconds",
        str(seconds),
        "--out",
        str(out),
        "--body",
        json.dumps({"features": dict(SMALL_ROW)}),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate(timeout=180)
    if process.returncode != 0:
        raise RuntimeError(f"the load client ended with {process.returncode}")
    return dict(json.loads(text.strip().splitlines()[-1]))


def start(folder: Path, rounds: int) -> tuple[Workflow, FolderSource]:
    source = FolderSource(str(folder / "registry"))
    for i in range(1, 5):
        source.add(small_bundle(folder / f"bundle-{i}", seed=i, rounds=rounds), version=str(i))
    source.move("champion", "1")
    workflow = Workflow(
        name="bench",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late"),
        serving=ServingSettings(port=free_ports(1)[0]),
        stores=StoreSettings(root=str(folder / "root")),
    )
    os.environ.update(serve_env(workflow.serving))
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    return workflow, source


def swaps_under_load(
    workflow: Workflow, source: FolderSource, url: str, *, out: Path, args: argparse.Namespace
) -> dict[str, Any]:
    from raywf.serving.deploy import app_name
    from raywf.serving.swap import swap

    process = load(url, out, connections=args.connections, seconds=args.seconds)
    pause = args.seconds / (args.swaps + 1)
    instants, took = [], []
    for i in range(args.swaps):
        time.sleep(pause)
        version = str(i % 3 + 2)
        instants.append(time.time())
        report = swap(
            app_name(workflow),
            source.version(version),
            record=lambda v=version: source.move("champion", v),  # type: ignore[misc]
        )
        took.append(report.prepare_s + report.commit_s)
    summary = finish(process)
    samples = [json.loads(line) for line in out.read_text().splitlines()]
    first = samples[0][0]
    before = [s[1] for s in samples if first + 1 <= s[0] < instants[0] - 0.5]
    during = [[s[1] for s in samples if t <= s[0] < t + 1] for t in instants]
    p99_before, p99_during = quantile(before, 0.99), [quantile(values, 0.99) for values in during]
    quiet = [quantile([s[1] for s in samples if t <= s[0] < t + 1], 0.99) for t in _quiet(first, instants[0])]
    return {
        "requests": summary["requests"],
        "failed": summary["failed"],
        "first_failure": summary["first_failure"],
        "swaps": len(took),
        "swap_s": [round(value, 3) for value in took],
        "p99_before_ms": round(p99_before * 1e3, 2),
        "p99_quiet_seconds_ms": [round(value * 1e3, 2) for value in quiet],
        "p99_swaps_ms": [round(value * 1e3, 2) for value in p99_during],
        "swap_p99_ratio": round(max(p99_during) / p99_before, 3),
        "swap_p99_ratio_by_second": round(max(p99_during) / quantile(quiet, 0.5), 3),
        "versions": sorted({s[4] for s in samples if s[2] == 200}),
    }


def _quiet(first: float, until: float) -> list[float]:
    """Return the starts of the whole seconds before the first swap: the noise to compare with."""
    return [first + 1 + i for i in range(int(until - first - 1.5))]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--swaps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--plain-seconds", type=float, default=5)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    try:
        workflow, source = start(folder, args.rounds)
        import ray

        from raywf.serving.deploy import deploy

        url = deploy(workflow, source)
        out = folder / "samples.jsonl"
        plain: dict[str, Any] = {}
        finish(load(url, out, connections=args.connections, seconds=2))
        for connections in (1, args.connections) if args.plain_seconds > 0 else ():
            found = finish(load(url, out, connections=connections, seconds=args.plain_seconds))
            plain |= {f"{key}_{connections}": found[key] for key in ("rps", "p50_ms", "p99_ms", "failed")}
        result = swaps_under_load(workflow, source, url, out=out, args=args)
        ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(plain | result | {"cpus": os.cpu_count(), "connections": args.connections}))


if __name__ == "__main__":
    main()
