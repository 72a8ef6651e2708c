"""The settings file that a job is given."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raywf.core.errors import JobError
from raywf.core.journal import Journal
from raywf.core.loader import dump_workflow, load_workflow
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.core.store import Store
from raywf.loop.jobs import Jobs, workflow_file
from raywf.testing import make_decision


def make_workflow(folder: Path) -> Workflow:
    """Return a workflow with its stores in a folder."""
    return Workflow(
        name="w",
        task="regression",
        spine=SpineSettings(path=str(folder / "x.csv"), label="y"),
        stores=StoreSettings(root=str(folder)),
    )


def test_resolved_settings_come_back_from_a_store(tmp_path: Path) -> None:
    """From a path and from a URI alike, whatever the job's own environment says."""
    workflow = make_workflow(tmp_path)
    Store(str(tmp_path)).write("jobs/one.json", dump_workflow(workflow).encode())
    for address in (str(tmp_path / "jobs/one.json"), (tmp_path / "jobs/one.json").as_uri()):
        assert load_workflow(workflow_file(address), environ={}) == workflow


def test_what_the_controller_tries_again_is_not_taken_up(tmp_path: Path) -> None:
    """Two jobs of one decision would both bring their model into traffic."""
    decision = make_decision("d1", window="now", time=datetime(2026, 1, 1, tzinfo=UTC))
    Journal(str(tmp_path), "w").decide(decision)
    asked = {"kind": "retrain", "settings": "jobs/d1.json", "arguments": ["--decision", "d1"]}
    Store(str(tmp_path)).write("jobs/d1/job.json", json.dumps(asked).encode())
    with pytest.raises(JobError, match="tries again by itself: 'raywf retrain' asks"):
        Jobs(make_workflow(tmp_path)).resume("d1")
