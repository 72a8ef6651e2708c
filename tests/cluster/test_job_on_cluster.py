"""A workflow submitted to a cluster of a head and two workers, through the command line."""

from __future__ import annotations

import csv
import json
import random
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

SETTINGS = """\
name: churn
task: binary
spine: {path: table.csv, label: left, keys: [id], positive: "yes"}
search: {budget_s: 30, trials: 4, folds: 2, families: [linear, lightgbm]}
"""


class Submitted:
    """A retraining that `raywf job submit --wait` has carried out, and what it said."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        write_table(folder / "table.csv")
        (folder / "workflow.yaml").write_text(SETTINGS)
        start = time.monotonic()
        done = self.raywf("job", "submit", "retrain", "--wait", "--json")
        self.seconds = time.monotonic() - start
        assert done.returncode == 0, done.stderr[-6000:]
        self.result = json.loads(done.stdout)
        self.followed = done.stderr

    def raywf(self, *words: str, address: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command line, by default against the cluster's dashboard, as from a laptop."""
        return self.cluster.raywf(self.folder, *words, address=address, **environ)


def write_table(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "months", "plan", "calls", "left"])
        for i in range(1500):
            months, calls = draw.randint(1, 60), draw.randint(0, 9)
            left = draw.random() < 0.1 + 0.7 * (months < 15) * (calls > 3)
            writer.writerow([i, months, draw.choice(["basic", "plus"]), calls, "yes" if left else "no"])


@pytest.fixture(scope="module")
def submitted(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    return Submitted(ray_cluster, tmp_path_factory.mktemp("churn"))


def test_the_job_succeeds(submitted: Submitted) -> None:
    """A job given to the dashboard's URL ends with SUCCEEDED and has promoted a version."""
    assert submitted.result["status"] == "SUCCEEDED"
    assert "version 1: promoted" in submitted.followed


def test_the_logs_are_read_back(submitted: Submitted) -> None:
    """`raywf job logs` gives what the job printed on the head."""
    logs = submitted.raywf("job", "logs", submitted.result["id"]).stdout
    assert "gate: accept" in logs
    assert re.search(r"trial \S+ ran on node \w+", logs)


def test_the_trials_ran_on_both_workers(submitted: Submitted) -> None:
    """The head has no CPU, so the trials share the two workers."""
    workers = {n["node_id"] for n in submitted.cluster.nodes() if not n["is_head_node"]}
    assert len(workers) == 2
    assert set(re.findall(r"ran on node (\w+)", submitted.followed)) == workers


@pytest.mark.parametrize("form", ["address", "dashboard"])
def test_the_status_is_listed(submitted: Submitted, form: str) -> None:
    """Ray's own address serves as well as the dashboard's URL."""
    listed = submitted.raywf("job", "status", "--json", address=getattr(submitted.cluster, form))
    assert json.loads(listed.stdout) == [submitted.result]


def test_a_client_without_the_token_is_refused(submitted: Submitted) -> None:
    """One line that says so, and exit 1; nothing of the cluster is shown."""
    refused = submitted.raywf("job", "status", RAY_AUTH_MODE="disabled")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert re.fullmatch(r"raywf: JobError: .*authentication.*\n", refused.stderr)


def test_a_cluster_that_is_away_is_an_error(submitted: Submitted) -> None:
    """One line that names the cluster, and exit 1."""
    refused = submitted.raywf("job", "status", address="http://127.0.0.1:9")
    assert refused.returncode == 1
    assert "JobError: the cluster's jobs cannot be reached" in refused.stderr


def test_stopping_an_unknown_job_is_an_error(submitted: Submitted) -> None:
    """One line that names the job, and exit 1."""
    refused = submitted.raywf("job", "stop", "no-such-job")
    assert refused.returncode == 1
    assert "JobError: job 'no-such-job' cannot be stopped" in refused.stderr
