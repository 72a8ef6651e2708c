"""What raywf's policy gains on six real streams, and what it costs: ``python benchmarks/backtest.py``.

Each stream is played back in its steps (`streams.py`), with one first model for all policies:

- beside a refit of the first configuration at every step, the policy with ``effort=refit``;
- beside a full search at every step, the policy as it is.

``[refit_]gain_share`` is the policy's gain over never retraining as a share of the yardstick's, and
``[refit_]cpu_share`` its CPU-seconds, looks included, as a share of the yardstick's: means over the streams.
``beats_adwin_and_periodic`` counts the streams on which the refitting policy's loss lies below what periodic
refits, and refits when ADWIN finds a rise, would have for the same CPU-seconds (each by interpolation between
its settings; never and every step are the ends). The refits and searches of the yardsticks and the rivals
always serve; the policy's go through the gate. A run goes on where it was interrupted (``--folder``);
what the policy did, and why, is on stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np  # noqa: E402
import ray  # noqa: E402
from streams import STREAMS, Stream, load, write  # noqa: E402 the folder is a set of scripts

from raywf.loop.backtest.course import Course  # noqa: E402
from raywf.loop.backtest.past import Past, read_past  # noqa: E402
from raywf.loop.backtest.run import compare, plan_chances  # noqa: E402

PERIODS, DELTAS = (2, 3, 4, 6), (0.5, 0.05, 0.002)
ORACLE = "oracle"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=30.0, help="seconds that a search may take")
    parser.add_argument("--streams", default=",".join(STREAMS), help="names, with commas between")
    parser.add_argument("--yardsticks", default="refit,full", help="which to measure")
    parser.add_argument("--folder", type=Path, help="where trainings are kept; default: a temporary one")
    options = parser.parse_args()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="raywf-backtest-") as name:
        folder = options.folder or Path(name)
        per_stream = {n: measure(load(n), folder / n, options) for n in options.streams.split(",")}
    ray.shutdown()
    print(json.dumps(summary(per_stream)))


def measure(stream: Stream, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the stream shows."""
    days = stream.step.days
    settings = {
        "search": {"budget_s": options.budget, "families": ["lightgbm"]},
        "retrain": {"look": f"{days}d", "cooldown": f"{days}d"},
        "monitor": {"window": f"{max(1, days // 10)}d"},
    }
    past = read_past(write(stream, folder, settings))
    chances = plan_chances(past, start=stream.start.to_pydatetime(), step=stream.step.to_pytimedelta())
    found: dict[str, Any] = {"rows": past.snapshot.rows, "steps": len(chances) - 1}
    if "refit" in options.yardsticks:
        found |= beside_refits(past, chances, days)
    if "full" in options.yardsticks:
        found |= beside_searches(past, chances, days)
    print(f"{stream.name}: {json.dumps(found)}", flush=True)
    return found


def beside_refits(past: Past, chances: Any, days: int) -> dict[str, Any]:
    periodic = [f"every {days * n}d" for n in (1, *PERIODS)]
    adwin = [f"adwin {delta:g}" for delta in DELTAS]
    played = play(past, ["never", *periodic, *adwin, "raywf effort=refit", ORACLE], chances)
    never, every, ours = played["never"], played[periodic[0]], played["raywf effort=refit"]
    rivals = {
        "periodic": at_cpu([never, *(played[p] for p in periodic)], ours.cpu_s),
        "adwin": at_cpu([never, *(played[p] for p in adwin), every], ours.cpu_s),
    }
    best = next(course for name, course in played.items() if name.startswith(ORACLE))
    return {
        **shares("refit_", never, every, ours),
        "beats": {name: ours.loss < loss for name, loss in rivals.items()},
        "rival_loss": {name: round(loss, 4) for name, loss in rivals.items()},
        "oracle_gain_share": gain(never, every, best),
        "courses": {name: told(course) for name, course in played.items()},
    }


def beside_searches(past: Past, chances: Any, days: int) -> dict[str, Any]:
    full = f"every {days}d full"
    played = play(past, ["never", full, "raywf"], chances)
    return {
        **shares("", played["never"], played[full], played["raywf"]),
        "searches": {name: told(course) for name, course in played.items()},
    }


def play(past: Past, policies: list[str], chances: Any) -> dict[str, Course]:
    start = time.time()

    def say(text: str) -> None:
        print(f"  [{time.time() - start:6.0f} s] {past.workflow.name}: {text}", file=sys.stderr, flush=True)

    courses = compare(past, policies, chances, say=say).courses
    for course in courses:
        for event in course.events if course.policy.startswith("raywf") else ():
            came = f"{event.stage}, {event.cpu_s:.1f} CPU-s: {event.reason}"
            say(f"{event.time:%Y-%m-%d} {event.kind} ({event.cause}, {event.effort}): {came}")
    return {course.policy: course for course in courses}


def at_cpu(courses: list[Course], cpu_s: float) -> float:
    """Return the loss that a rival would have for so many CPU-seconds, between its settings."""
    points = sorted((c.cpu_s, c.loss) for c in courses)
    return float(np.interp(cpu_s, [p[0] for p in points], [p[1] for p in points]))


def gain(never: Course, yardstick: Course, course: Course) -> float:
    return round((never.loss - course.loss) / (never.loss - yardstick.loss), 4)


def shares(prefix: str, never: Course, yardstick: Course, ours: Course) -> dict[str, float]:
    return {
        f"{prefix}gain_share": gain(never, yardstick, ours),
        f"{prefix}cpu_share": round(ours.cpu_s / yardstick.cpu_s, 4),
    }


def told(course: Course) -> dict[str, Any]:
    return {
        "loss": round(course.loss, 4),
        "cpu_s": round(course.cpu_s, 1),
        "retrainings": course.count("retrain"),
        "promoted": course.count("retrain", "promoted"),
        "looks": course.count("probe"),
        "vain": course.vain,
    }


def summary(per_stream: dict[str, dict[str, Any]]) -> dict[str, Any]:
    keys = ("gain_share", "cpu_share", "refit_gain_share", "refit_cpu_share", "oracle_gain_share")
    means = {}
    for key in keys:
        values = [found[key] for found in per_stream.values() if key in found]
        means[key] = round(float(np.mean(values)), 4) if values else None
    beats = [all(found["beats"].values()) for found in per_stream.values() if "beats" in found]
    return {**means, "beats_adwin_and_periodic": sum(beats), "per_stream": per_stream}


if __name__ == "__main__":
    main()
