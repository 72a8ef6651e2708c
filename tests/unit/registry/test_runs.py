"""What MLflow has of a search, in a real store on SQLite; and what is said where it refuses."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from raywf.core.errors import RegistryError
from raywf.core.records import Snapshot, Trial
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.registry.client import connect, tracking_uri
from raywf.registry.runs import log_sweep
from raywf.testing import make_sweep

TRIAL = Trial(id="mine-1", family="mine", params={"family": "poisson", "C": 0.3}, status="done", score=0.4)
SWEEP = make_sweep("sweep1", snapshot_id="snapshot1", metric="rmse", trials=(TRIAL,))
SNAPSHOT = Snapshot(
    id="snapshot1",
    workflow="w",
    uri="",
    rows=10,
    columns=(),
    task="regression",
    classes=(),
    label="y",
    has_time=False,
    window=None,
    as_of=None,
    digest="",
    profile=(),
    sources=(),
)


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workflow]:
    """A workflow whose store is made once: its tables take seconds."""
    root = str(tmp_path_factory.mktemp("runs"))
    spine = SpineSettings(path="x.csv", label="y")
    yield Workflow(name="w", task="regression", spine=spine, stores=StoreSettings(root=root))
    connect.cache_clear()


def test_a_parameter_may_be_called_family(workflow: Workflow) -> None:
    """A model of the user's own may have one; the run tells both."""
    parent = log_sweep(workflow, SNAPSHOT, SWEEP)
    client = connect(tracking_uri(workflow))
    experiment = client.get_experiment_by_name("w").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert run.data.params == {"family": "mine", "mine.family": "poisson", "C": "0.3"}


def test_a_store_that_breaks_on_the_way_is_the_registry_s_error(workflow: Workflow) -> None:
    """It could be reached, and its tables are gone."""
    log_sweep(workflow, SNAPSHOT, SWEEP)
    with sqlite3.connect(Path(workflow.stores.root) / "mlflow.db") as base:
        base.execute("DROP TABLE latest_metrics")
    with pytest.raises(
        RegistryError, match=r"did not write the runs of sweep sweep3: .*latest_metrics"
    ) as told:
        log_sweep(workflow, SNAPSHOT, dataclasses.replace(SWEEP, id="sweep3"))
    assert "\n" not in str(told.value)
