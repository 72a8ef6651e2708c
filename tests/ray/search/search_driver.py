"""A search as a process of its own, on its own Ray; killed and started again by `test_resume.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import ray
from test_search import search


def main(root: str) -> None:
    """Search below `root` and print the trials' ids, their folds and the members."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    sweep = search(
        Path(root),
        "binary",
        timed=False,
        budget_s=100,
        trials=5,
        folds=3,
        families=("lightgbm", "xgboost", "linear"),
    ).result.sweep
    ray.shutdown()
    trials = {t.id: [t.status, *t.fold_losses] for t in sweep.trials}
    print(json.dumps({"trials": trials, "members": {m.trial_id: m.weight for m in sweep.members}}))


if __name__ == "__main__":
    main(sys.argv[1])
