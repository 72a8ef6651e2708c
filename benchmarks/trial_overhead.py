"""What a trial costs beside its model: trivial trials of raywf's search next to a plain Tune function.

``python benchmarks/trial_overhead.py [--trials 100] [--tune-trials 100]`` starts Ray with 2 CPUs in this
process. raywf's trials fit the training prior on 2 folds of 200 rows, as a search does, through
`raywf.search.tuning.run_trials`, ledger included. Tune's are a function that reports one number, with Tune's
defaults except that it prints nothing. Both are timed once Ray is up. Exits 0 only if all trials ended well.
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

os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray
from ray import tune

from raywf.core.ids import stable_id
from raywf.core.metrics import METRICS
from raywf.core.records import Trial
from raywf.core.settings import SearchSettings
from raywf.models.family import Rows
from raywf.search.data import Fold, SearchData
from raywf.search.folds import TrialPlan
from raywf.search.ledger import Ledger
from raywf.search.queue import planned
from raywf.search.tuning import run_trials

ROWS = 200


def small_data() -> SearchData:
    rng = np.random.default_rng(0)
    rows = np.arange(ROWS)
    return SearchData(
        rows=Rows(rng.normal(size=(ROWS, 4)).astype(np.float32), (rows % 2).astype(np.float64)),
        times=None,
        known=None,
        folds=(Fold(fit=rows[:100], score=rows[100:]), Fold(fit=rows[100:], score=rows[:100])),
        gate=rows[:0],
        rest=rows,
        task="binary",
        n_classes=2,
        sizes=(0, 0, 0, 0),
    )


def prior_trials(count: int) -> list[Trial]:
    wanted = [{"which": i} for i in range(count)]
    return [Trial(id=f"prior-{stable_id(p)}", family="prior", params=p, status="planned") for p in wanted]


def run_raywf(folder: Path, count: int) -> tuple[float, int]:
    """Return the seconds, and how many trials were done and are in the ledger."""
    end = time.time() + 600
    ledger = Ledger(str(folder / "raywf"), "overhead")
    plan = TrialPlan(metric=METRICS["brier"], threads=1, deadline=end, last_moment=end, seed=0, ledger=ledger)
    settings = SearchSettings(budget_s=600, trials=count, folds=2)
    start = time.perf_counter()
    shared = ray.put(small_data())
    found, _nodes = run_trials(
        shared,
        planned(prior_trials(count), fold_rows=(100, 100), deadline=end, slots=2),
        plan,
        settings=settings,
        progress=lambda _trial: None,
    )
    seconds = time.perf_counter() - start
    done = {t.id for t in found if t.status == "done" and len(t.fold_losses) == 2}
    return seconds, sum(ledger.find(i) is not None for i in done)


def report_one(config: dict[str, int]) -> None:
    tune.report({"loss": float(config["which"])})


def run_tune(folder: Path, count: int) -> tuple[float, int]:
    """Return the seconds, and how many trials reported."""
    start = time.perf_counter()
    results = tune.Tuner(
        report_one,
        param_space={"which": tune.grid_search(list(range(count)))},
        run_config=tune.RunConfig(name="plain", storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    seconds = time.perf_counter() - start
    return seconds, sum(r.error is None and (r.metrics or {}).get("loss") is not None for r in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100, help="trials of raywf")
    parser.add_argument("--tune-trials", type=int, default=100, help="trials of the plain Tune function")
    options = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    with tempfile.TemporaryDirectory(prefix="rwf-bench-") as name:
        before = dict(os.environ)
        raywf_s, raywf_done = run_raywf(Path(name), options.trials)
        os.environ.clear()  # raywf's settings of Tune go with it: the peer runs with the defaults
        os.environ.update(before, RAY_AIR_NEW_OUTPUT="0")  # the old output prints nothing at verbose=0
        tune_s, tune_done = run_tune(Path(name), options.tune_trials)
        ray.shutdown()  # before the folder goes: workers may still write there
    print(
        json.dumps(
            {
                "raywf_ms_per_trial": round(1000 * raywf_s / options.trials, 1),
                "tune_ms_per_trial": round(1000 * tune_s / options.tune_trials, 1),
                "raywf_s": round(raywf_s, 2),
                "tune_s": round(tune_s, 2),
                "trials": options.trials,
                "tune_trials": options.tune_trials,
                "raywf_done": raywf_done,
                "tune_done": tune_done,
                "cpus": 2,
            }
        )
    )
    return 0 if (raywf_done, tune_done) == (options.trials, options.tune_trials) else 1


if __name__ == "__main__":
    sys.exit(main())
