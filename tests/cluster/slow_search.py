"""A search whose every fit takes its time and leaves a note: what was begun, what ended, and how often."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETTINGS = """\
name: churn
task: binary
spine: {{path: table.csv, label: left, keys: [id], event_time: day, positive: "yes"}}
search:
  budget_s: 150
  trials: {trials}
  folds: {folds}
  families: []
  max_failures: {max_failures}
  models:
    slow:
      code: slow.py:Slow
      trust: true
      trials: {trials}
      space: {{slope: {{low: 0.0, high: 1.0}}}}
"""
# of all slopes alike, so that no trial is stopped as a loser
MODEL = """
import hashlib, json, time, uuid
from pathlib import Path

NOTES = Path({notes!r})


class Slow:
    def __init__(self, slope=0.0):
        self.slope = slope

    def fit(self, X, y):
        note = NOTES / uuid.uuid4().hex
        key = [round(self.slope, 6), len(y), hashlib.sha256(y.tobytes()).hexdigest()[:12]]
        note.with_suffix(".begun").write_text(json.dumps(key))
        time.sleep({seconds})
        self.share = float(y.mean())
        note.with_suffix(".ended").write_text(json.dumps(key))

    def predict_proba(self, X):
        return [[1 - self.share, self.share]] * len(X)

    def save(self, folder):
        (folder / "share.json").write_text(json.dumps(self.share))

    def load(self, folder):
        self.share = json.loads((folder / "share.json").read_text())
"""
_DEADLINE_S = 150.0


def wait_until(condition: Callable[[], Any], what: str, *, seconds: float = _DEADLINE_S) -> Any:
    """Return what the condition gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
    return found


class SlowSearch:
    """Its files below a folder, and its jobs on a cluster."""

    def __init__(
        self,
        cluster: Any,
        folder: Path,
        *,
        trials: int = 6,
        folds: int = 3,
        seconds: float = 1.0,
        max_failures: int = 3,
    ) -> None:
        self.cluster, self.folder, self.trials, self.folds_each = cluster, folder, trials, folds
        self._notes = folder / "notes"
        self._notes.mkdir()
        _write_table(folder / "table.csv")
        (folder / "slow.py").write_text(MODEL.format(notes=str(self._notes), seconds=seconds))
        settings = SETTINGS.format(trials=trials, folds=folds, max_failures=max_failures)
        (folder / "workflow.yaml").write_text(settings)

    def raywf(self, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self.cluster.raywf(self.folder, *words, **given)

    def submit(self) -> str:
        """Submit the search and return the job's id."""
        done = self.raywf("job", "submit", "search", "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        return str(json.loads(done.stdout)["id"])

    def folds(self) -> dict[str, tuple[bytes, int]]:
        """Return every fold in the ledger, with the time at which it was written."""
        found = self._sweeps().glob("*/trials/*/fold-*.npz")
        return {f"{p.parent.name}/{p.name}": (p.read_bytes(), p.stat().st_mtime_ns) for p in found}

    def await_folds(self, count: int) -> dict[str, tuple[bytes, int]]:
        """Wait until the ledger has that many."""
        found: dict[str, tuple[bytes, int]] = wait_until(
            lambda: folds if len(folds := self.folds()) >= count else None, f"{count} folds are kept"
        )
        return found

    def await_status(self, job_id: str, *statuses: str) -> str:
        """Wait until the job has one of them."""
        return str(
            wait_until(
                lambda: s if (s := self.cluster.job(job_id).get("status")) in statuses else None,
                f"job {job_id} is one of {statuses}",
            )
        )

    def await_log(self, job_id: str, end: str) -> None:
        """Wait until what the store kept of the job's output ends so, no cluster being there to ask."""
        kept = ""

        def ends() -> bool:
            nonlocal kept
            kept = self.raywf("job", "logs", job_id, address="http://127.0.0.1:9").stdout
            return kept.endswith(end)

        try:
            wait_until(ends, f"the output of {job_id} ends with {end!r}", seconds=20)
        except AssertionError as err:
            raise AssertionError(f"{err}, but with {kept[-500:]!r}") from err

    def sweep(self) -> dict[str, Any]:
        """Return the record of the one sweep that there is."""
        (path,) = self._sweeps().glob("*/sweep.json")
        assert len(list(self._sweeps().iterdir())) == 1
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def repeated(self) -> int:
        """Return how many fits were begun again that had been begun before."""
        notes = Counter(path.read_text() for path in self._notes.glob("*.begun"))
        return sum(count - 1 for count in notes.values())

    def assert_whole(self) -> None:
        """See that every trial is done, each fold once in the ledger and no fold of any other trial."""
        trials = self.sweep()["trials"]
        assert [trial["status"] for trial in trials] == ["done"] * self.trials
        names = {f"{trial['id']}/fold-{n}.npz" for trial in trials for n in range(self.folds_each)}
        assert self.folds().keys() == names

    def _sweeps(self) -> Path:
        return self.folder / ".raywf" / "sweeps"


def _write_table(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "day", "months", "left"])
        for i in range(1200):
            months = draw.randint(1, 60)
            day = f"2024-{1 + i // 100:02d}-{1 + i % 28:02d}T00:00:00Z"
            writer.writerow([i, day, months, "yes" if draw.random() < 0.3 else "no"])
