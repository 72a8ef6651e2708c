"""What a shadow costs the champion: the p99 of live answers without one, with one, and with a slow one.

``python benchmarks/shadow.py [--seconds 10] [--rounds 5]`` serves a LightGBM model of 200 trees by one
replica on this machine and asks for one row at a time, at half of the rate that it can answer. A shadow gets
a copy of all rows. The three cases take turns; the ratios are medians over the rounds of the p99 with a
shadow to the p99 without in the same round. The slow shadow's model takes `slower` times as long for a row as
the champion's; what it is too slow for is dropped, and counted. The requests come from h2load (``apt install
nghttp2-client``), or else from `load.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from load import quantile  # noqa: E402 the folder is a set of scripts
from swap import Load  # noqa: E402

from raywf.core.rollout import Rollouts, RolloutStep  # noqa: E402
from raywf.core.serving_settings import ServingSettings  # noqa: E402
from raywf.core.settings import SpineSettings, StoreSettings, Workflow  # noqa: E402
from raywf.models.bundle import load_bundle  # noqa: E402
from raywf.serving.environment import free_ports, serve_env  # noqa: E402
from raywf.testing import SMALL_ROW, FolderSource, small_bundle  # noqa: E402

TREES, SLOW_TREES, CONNECTIONS, SHARE = 200, 22_000, 16, 0.5
CASES = {"without": None, "shadow": "2", "slow_shadow": "3"}


def row_us(path: str) -> float:
    """Return the median time of a row in this process."""
    predictor, times = load_bundle(Path(path)), []
    for _ in range(300):
        start = time.perf_counter()
        predictor.predict_row(dict(SMALL_ROW))
        times.append(time.perf_counter() - start)
    return 1e6 * median(times)


class Site:
    """One replica, and the rollouts that it takes part in."""

    def __init__(self, folder: Path) -> None:
        self.source = FolderSource(str(folder / "registry"))
        for version, trees in (("1", TREES), ("2", TREES), ("3", SLOW_TREES)):
            self.source.add(small_bundle(folder / f"bundle-{version}", rounds=trees), version=version)
        self.source.move("champion", "1")
        self.workflow = Workflow(
            name="bench",
            task="binary",
            spine=SpineSettings(path="none.csv", label="late"),
            serving=ServingSettings(port=free_ports(1)[0], replicas=1),
            stores=StoreSettings(root=str(folder / "root")),
        )
        self.rollouts = Rollouts(self.workflow.stores.root, self.workflow.name)
        self.step: RolloutStep | None = None

    def begin(self, challenger: str) -> None:
        """Let the replica copy all rows to a version, and wait until it does."""
        self.step = self.rollouts.start(
            "shadow", champion="1", challengers=(challenger,), share=0.0, time=datetime.now(UTC)
        )
        while self.lane().step != self.step.tag:
            time.sleep(0.1)

    def end(self) -> tuple[int, int]:
        """Return the rows that the shadow answered and those dropped, and end it."""
        if self.step is None:
            return 0, 0
        lane = self.lane()
        self.rollouts.follow(self.step, stage="aborted", share=0.0, paused=False, reasons=(), figures={})
        self.step = None
        while self.lane().step:
            time.sleep(0.1)
        return lane.copied, lane.dropped

    def lane(self) -> Any:
        from raywf.serving.deploy import app_name
        from raywf.serving.swap import call_replicas

        return call_replicas(app_name(self.workflow), "rollout", deadline=time.monotonic() + 30)[0]


def measure(site: Site, url: str, seconds: float, rounds: int) -> dict[str, Any]:
    root = Path(site.workflow.stores.root)
    Load(url, root, connections=CONNECTIONS, seconds=2).samples()
    most = len(Load(url, root, connections=CONNECTIONS, seconds=5).samples()) / 5
    p99: dict[str, list[float]] = {name: [] for name in CASES}
    counts: dict[str, list[int]] = {name: [0, 0, 0, 0] for name in CASES}
    for _ in range(rounds):
        for name, version in CASES.items():
            if version is not None:
                site.begin(version)
                Load(url, root, connections=CONNECTIONS, seconds=3, rate=SHARE * most).samples()
            samples = Load(url, root, connections=CONNECTIONS, seconds=seconds, rate=SHARE * most).samples()
            copied, dropped = site.end()
            p99[name].append(quantile([s[1] for s in samples], 0.99))
            failed = sum(s[2] != 200 for s in samples)
            counts[name] = [
                a + b for a, b in zip(counts[name], (len(samples), failed, copied, dropped), strict=True)
            ]
            print(name, round(p99[name][-1] * 1e3, 2), counts[name], file=sys.stderr, flush=True)
    found: dict[str, Any] = {"rps": round(SHARE * most, 1)}
    for name in CASES:
        asked, failed, copied, dropped = counts[name]
        found[name] = {"requests": asked, "failed": failed, "copied": copied, "dropped": dropped}
        found[name]["p99_ms"] = round(1e3 * median(p99[name]), 3)
        ratios = [with_it / without for with_it, without in zip(p99[name], p99["without"], strict=True)]
        found[f"p99_ratio_{name}"] = round(median(ratios), 3)
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    try:
        site = Site(folder)
        os.environ.update(serve_env(site.workflow.serving))
        os.environ["RAY_AUTH_MODE"] = "disabled"
        import ray

        from raywf.serving.deploy import deploy

        us = {version: row_us(site.source.version(version).uri) for version in ("1", "3")}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        found = measure(site, deploy(site.workflow, site.source), args.seconds, args.rounds)
        ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found | {"slower": round(us["3"] / us["1"], 1), "row_us": round(us["1"], 1)}))


if __name__ == "__main__":
    main()
