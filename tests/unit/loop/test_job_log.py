"""A job's output is kept in the store while it goes, and read from there when its node is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raywf.core.errors import JobError
from raywf.core.settings import ClusterSettings, SpineSettings, StoreSettings, Workflow
from raywf.core.store import Store
from raywf.loop import job_log
from raywf.loop.job_log import OutputKeeper, keep_output, read_kept
from raywf.loop.jobs import Jobs

DRIVER = """
import os, sys, time
from raywf.core.loader import load_workflow
from raywf.loop import job_log
job_log.EVERY_S = 0.05
job_log.keep_output(load_workflow(sys.argv[1], environ={}))
print("snapshot 17", "postgresql://raywf:hunter2hunter2@db/mlflow", os.environ["DB_PASSWORD"], flush=True)
"""
AWAY = ClusterSettings(address="http://127.0.0.1:9")


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A workflow with a store of its own, whose cluster is away."""
    root = StoreSettings(root=str(tmp_path / "store"))
    spine = SpineSettings(path=str(tmp_path / "a.csv"), label="y")
    return Workflow(name="w", task="binary", spine=spine, stores=root, cluster=AWAY)


class Output:
    """A file that grows, and who keeps it as the output of job 1."""

    def __init__(self, folder: Path, root: str) -> None:
        self.path = folder / "out"
        self.path.touch()
        self._file = self.path.open("rb")
        self.keeper = OutputKeeper(self._file, Store(root), "jobs/1", secrets=["correct horse"])

    def prints(self, text: str, *, last: bool = False) -> None:
        """Print a text, and ship what is there."""
        with self.path.open("a") as file:
            file.write(text)
        self.keeper.ship(last=last)

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def output(tmp_path: Path, workflow: Workflow) -> Iterator[Output]:
    """The output of job 1."""
    made = Output(tmp_path, workflow.stores.root)
    yield made
    made.close()


def test_lines_are_kept_as_they_come(output: Output, workflow: Workflow) -> None:
    """Whole ones at once, a half one with its other half, and at the end what there is."""
    output.prints("one\ntw")
    assert read_kept(workflow, "1") == "one\n"
    output.prints("o\nthree")
    assert read_kept(workflow, "1") == "one\ntwo\n"
    output.prints("", last=True)
    assert read_kept(workflow, "1") == "one\ntwo\nthree"


def test_a_secret_is_kept_by_nobody(output: Output, workflow: Workflow) -> None:
    """Though it be printed in two halves."""
    output.prints("it is correct ho")
    output.prints("rse\nand bearer 0123456789abcdef\n")
    assert read_kept(workflow, "1") == "it is ***\nand bearer ***\n"


def test_nothing_is_lost_while_the_store_is_away(output: Output, workflow: Workflow, tmp_path: Path) -> None:
    """What could not be written is written by the next call."""
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="store"):
        output.prints("one\n")
    (tmp_path / "store").unlink()
    output.prints("two\n")
    assert read_kept(workflow, "1") == "one\ntwo\n"


def test_of_a_flood_the_beginning_and_the_end_are_kept(
    output: Output, workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many parts, and a line that says how much is left out."""
    monkeypatch.setattr(job_log, "_PART_BYTES", 100)
    monkeypatch.setattr(job_log, "_MOST_PARTS", 3)
    lines = [f"line {number:04d}\n" for number in range(200)]
    for line in lines:
        output.prints(line)
    kept = read_kept(workflow, "1")
    assert kept is not None
    assert kept.startswith("".join(lines[:10]))
    assert kept.endswith("".join(lines[-10:]))
    assert "\n... 1,700 bytes are not kept ...\n" in kept
    assert len(Store(workflow.stores.root).list("jobs/1")) == 3


def test_a_long_line_is_not_waited_for(output: Output, workflow: Workflow) -> None:
    """A progress bar may have no line's end for hours."""
    output.prints("x" * 70_000)
    assert read_kept(workflow, "1") == "x" * 70_000


def driver(workflow: Workflow, tmp_path: Path, body: str, **how: Any) -> subprocess.Popen[bytes]:
    """Start a driver as Ray does: its output goes to a file, and its id is in the environment."""
    settings = {
        "name": "w",
        "task": "binary",
        "spine": {"path": workflow.spine.path, "label": "y"},
        "stores": {"root": workflow.stores.root},
    }
    (tmp_path / "w.json").write_text(json.dumps(settings))
    config = json.dumps({"metadata": {"job_submission_id": "w-search-1"}})
    environ = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": config, "DB_PASSWORD": "correct horse"}
    with (tmp_path / "driver.log").open("ab") as file:
        command = [sys.executable, "-c", DRIVER + body, str(tmp_path / "w.json")]
        return subprocess.Popen(command, stdout=file, stderr=file, env=environ, **how)


@pytest.mark.parametrize("body", ["raise ValueError('what was wrong')", "raise KeyboardInterrupt"])
def test_a_driver_that_fails_has_kept_why(workflow: Workflow, tmp_path: Path, body: str) -> None:
    """Its trace is there to the last line, its secrets are not."""
    assert driver(workflow, tmp_path, body).wait(timeout=60) != 0
    kept = read_kept(workflow, "w-search-1")
    assert kept is not None
    assert kept.startswith("snapshot 17 postgresql://raywf:***@db/mlflow ***\nTraceback")
    assert kept.rstrip().splitlines()[-1] in {"ValueError: what was wrong", "KeyboardInterrupt"}


def test_a_driver_in_the_background_heeds_an_interrupt(workflow: Workflow, tmp_path: Path) -> None:
    """What a shell starts with `&` ignores it, and what that starts does too."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    body = "os.kill(os.getpid(), 2); time.sleep(9)"
    process = driver(workflow, tmp_path, body, preexec_fn=ignore)
    assert process.wait(timeout=60) != 0
    assert (read_kept(workflow, "w-search-1") or "").rstrip().endswith("KeyboardInterrupt")


def test_a_killed_driver_has_kept_what_it_printed_before(workflow: Workflow, tmp_path: Path) -> None:
    """All but that of the last seconds."""
    process = driver(workflow, tmp_path, "time.sleep(60)")
    deadline = time.monotonic() + 60
    while "snapshot 17" not in (read_kept(workflow, "w-search-1") or "") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert (read_kept(workflow, "w-search-1") or "").startswith("snapshot 17")


def test_a_process_that_is_no_job_keeps_nothing(workflow: Workflow) -> None:
    """A job's entry point may be run by hand."""
    assert keep_output(workflow, {}) is None


def test_logs_are_read_though_the_cluster_is_away(output: Output, workflow: Workflow) -> None:
    """From the store; of a job of which it has none the error says what is wrong with the cluster."""
    output.prints("one\n")
    assert Jobs(workflow).logs("1") == "one\n"
    with pytest.raises(JobError, match=r"no logs of job '2': the cluster's jobs cannot be reached"):
        Jobs(workflow).logs("2")


def test_a_job_that_nobody_submitted_is_not_taken_up(workflow: Workflow) -> None:
    """The store has what a job was asked to do."""
    with pytest.raises(JobError, match="job 'x' cannot be taken up: nothing is known of it in the store"):
        Jobs(workflow).resume("x")
