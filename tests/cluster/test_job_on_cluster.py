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
from slow_search import SlowSearch

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


def test_the_logs_are_read_without_the_cluster(submitted: Submitted) -> None:
    """From the store, and as the cluster has them."""
    job_id = submitted.result["id"]
    away = submitted.raywf("job", "logs", job_id, address="http://127.0.0.1:9")
    assert (away.returncode, away.stdout) == (0, submitted.raywf("job", "logs", job_id).stdout)
    assert "version 1: promoted" in away.stdout


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


def test_a_driver_without_a_node_of_its_pool_is_on_the_head(submitted: Submitted) -> None:
    """No node here is labelled as one of the system: the job does not wait for one."""
    done = submitted.raywf("job", "submit", "snapshot", "--wait", "--json", RAYWF_CLUSTER__POOLS="true")
    assert done.returncode == 0, done.stderr[-3000:]
    (head,) = (node["node_id"] for node in submitted.cluster.nodes() if node["is_head_node"])
    assert submitted.cluster.job(json.loads(done.stdout)["id"])["driver_node_id"] == head


def test_a_stopped_search_is_taken_up_again(ray_cluster: Any, tmp_path: Path) -> None:
    """It ends by itself in seconds; submitted again it is the same search, and no fold is fitted twice."""
    slow = SlowSearch(ray_cluster, tmp_path, trials=18, seconds=0.7)  # twelve seconds are left to stop it in
    job_id = slow.submit()
    slow.await_folds(1)
    running = slow.raywf("job", "resume", job_id)
    assert running.returncode == 1
    assert re.search(r"job '\S+' is RUNNING: stop it first", running.stderr)
    slow.await_folds(19)  # six trials have ended; what is drawn from then on depends on them
    assert slow.raywf("job", "stop", job_id).returncode == 0
    asked = time.monotonic()
    slow.await_status(job_id, "STOPPED")
    assert time.monotonic() - asked < 15  # it would be killed after 20
    slow.await_log(job_id, "Aborted!\n")
    kept = slow.folds()
    again = slow.raywf("job", "resume", job_id, "--wait", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads(again.stdout) == {"id": f"{job_id}-again-1", "status": "SUCCEEDED"}
    after = slow.folds()
    assert 19 <= len(kept) < len(after)
    assert {name: after[name] for name in kept} == kept
    slow.assert_whole()
    assert slow.repeated() <= 2  # the folds that were under way on the two nodes
