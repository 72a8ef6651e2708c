"""A search of models that share a GPU, as a process of its own with a cluster that says it has one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "disabled"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import ray
from test_own_models import search
from test_search import make_table

CODE = '''
import os, time
from pathlib import Path
import numpy as np

class Careful:
    """Says on which GPU it was fitted, and when."""

    def __init__(self, folder, number):
        self.folder, self.number = Path(folder), number

    def fit(self, X, y):
        begun = time.time()
        time.sleep(1)
        with (self.folder / "fits.txt").open("a") as file:
            file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {begun} {time.time()}\\n")

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)

    def save(self, folder):
        pass

    def load(self, folder):
        pass
'''


def main(root: Path) -> None:
    """Search below `root`; the fits tell of themselves in a file there."""
    ray.init(num_cpus=8, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    (root / "own.py").write_text(CODE)
    model = {
        "code": f"{root}/own.py:Careful",
        "trust": True,
        "params": {"folder": str(root), "number": 0},
        "space": {"number": {"low": 1, "high": 100}},
        "trials": 6,
        "gpus": 0.5,
    }
    search(root / "r", make_table("binary", timed=False), families=[], models={"mine": model}, trials=6)
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
