"""A search as a process of its own, on its own Ray; killed and started again by `test_resume.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import ray
from test_search import search

ASKED: dict[str, dict[str, Any]] = {
    "five trials": {"budget_s": 100, "trials": 5, "folds": 3, "families": ("lightgbm", "xgboost", "linear")},
    "five cents": {"budget_s": 600, "trials": 10_000, "max_usd": 0.05, "price": 1.0},
}


def main(root: str, asked: str) -> None:
    """Search below `root` and print the trials' ids, their folds, the members and what it cost."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    sweep = search(Path(root), "binary", timed=False, **ASKED[asked]).result.sweep
    ray.shutdown()
    trials = {t.id: [t.status, *t.fold_losses] for t in sweep.trials}
    members = {m.trial_id: m.weight for m in sweep.members}
    print(json.dumps({"trials": trials, "members": members, "usd": sweep.cost_usd}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
