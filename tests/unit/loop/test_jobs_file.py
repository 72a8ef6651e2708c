"""The settings file that a job is given."""

from __future__ import annotations

from pathlib import Path

from raywf.core.loader import dump_workflow, load_workflow
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.core.store import Store
from raywf.loop.jobs import workflow_file


def test_resolved_settings_come_back_from_a_store(tmp_path: Path) -> None:
    """From a path and from a URI alike, whatever the job's own environment says."""
    workflow = Workflow(
        name="w",
        task="regression",
        spine=SpineSettings(path=str(tmp_path / "x.csv"), label="y"),
        stores=StoreSettings(root=str(tmp_path)),
    )
    Store(str(tmp_path)).write("jobs/one.json", dump_workflow(workflow).encode())
    for address in (str(tmp_path / "jobs/one.json"), (tmp_path / "jobs/one.json").as_uri()):
        assert load_workflow(workflow_file(address), environ={}) == workflow
