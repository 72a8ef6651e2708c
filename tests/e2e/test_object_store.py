"""The system with its store on a real S3 API and MLflow on PostgreSQL; the bucket is away for a while."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import command_line  # noqa: E402 the folder is not a package
from command_line import post, until  # noqa: E402
from servers import Bucket  # noqa: E402
from test_cli_newcomer import CUSTOMER, begin, write_customers  # noqa: E402

pytestmark = pytest.mark.timeout(290)
AWAY_S = 20.0


@pytest.fixture(scope="module")
def project(bucket: Bucket, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A project of one CSV whose store is a bucket and a database; its first model is in service."""
    folder = tmp_path_factory.mktemp("bucket") / "churn"
    folder.mkdir()
    write_customers(folder / "customers.csv")
    made = begin(
        folder,
        Path("customers.csv"),
        ("label: label ", "label: churn "),
        ("keys: [id] ", "keys: [customer] "),
        ('# positive: "yes"', 'positive: "Yes"'),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(command_line.ENVIRON, "XDG_CACHE_HOME", str(folder / "node"))
        patch.setitem(command_line.ENVIRON, "RAYWF_STORES__ROOT", f"s3://{bucket.name}/churn")
        patch.setitem(command_line.ENVIRON, "RAYWF_STORES__MLFLOW", database)
        try:
            made.first = made.raywf("run")  # type: ignore[attr-defined]
            made.url = made.raywf("serve", "up")["url"]  # type: ignore[attr-defined]
            yield made
        finally:
            made.try_raywf("serve", "down")


def labelled(project: Any) -> tuple[int, int]:
    """Return how many predictions the log holds, and how many with a label."""
    windows = project.raywf("evidence")["windows"]
    return sum(w["rows"] for w in windows), sum(w["labelled"] for w in windows)


def answer_one(project: Any) -> str:
    status, answer = post(f"{project.url}/v1/predict", {"features": CUSTOMER})
    assert status == 200
    identity = str(answer["predictions"][0]["id"])
    assert post(f"{project.url}/v1/outcomes", {"id": identity, "label": "Yes"})[0] == 202
    return identity


def test_a_model_is_made_and_served_from_the_bucket(project: Any, bucket: Bucket) -> None:
    """Snapshot, sweep, bundle and journal are objects."""
    assert project.first["status"] == "promoted"
    found = boto3.client("s3").list_objects_v2(Bucket=bucket.name, Prefix="churn/")["Contents"]
    parts = {one["Key"].split("/")[1] for one in found}
    assert {"snapshots", "sweeps", "journal", "artifacts"} <= parts
    answer_one(project)
    until(lambda: labelled(project) == (1, 1), "the outcome in the log")


def test_nothing_is_lost_while_the_bucket_is_away(project: Any, bucket: Bucket) -> None:
    """Predictions are answered, outcomes taken, and all of it is in the log afterwards."""
    before, _ = labelled(project)
    count, end = 0, time.monotonic() + AWAY_S
    with bucket.away():
        while time.monotonic() < end:
            answer_one(project)
            count += 1
            time.sleep(0.2)
    assert count > 20
    until(
        lambda: labelled(project) == (before + count, before + count), "all outcomes in the log", seconds=90
    )
    assert project.raywf("serve", "status")["status"] == "RUNNING"
