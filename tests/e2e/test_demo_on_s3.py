"""The demo with every store on an S3 API and MLflow on PostgreSQL; in the middle the bucket is away."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from servers import Bucket
from test_demo import Demo

from raywf.core.records import Outcome, Prediction
from raywf.outcomes.reader import LogReader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
AWAY_S = 20.0


def test_nothing_is_lost(
    tmp_path: Path, bucket: Bucket, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request fails, versions are swapped in, and all that was acknowledged is in the log afterwards."""
    root = f"s3://{bucket.name}/demo"
    monkeypatch.setenv("RAYWF_STORES__ROOT", root)
    monkeypatch.setenv("RAYWF_STORES__MLFLOW", database)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    demo = Demo(tmp_path / "demo")
    demo.read_until("sending")
    demo.read_until("flights landed")
    with bucket.away():
        time.sleep(AWAY_S)
    last = demo.finish()
    print(last)

    assert last["failed"] == 0
    assert last["swaps"] >= 1
    for part in ("snapshots", "sweeps", "journal", "log", "artifacts"):
        found = boto3.client("s3").list_objects_v2(Bucket=bucket.name, Prefix=f"demo/{part}/", MaxKeys=1)
        assert found["KeyCount"] == 1, part
    entries, _ = LogReader(root, "flights").read()
    assert len({e.id for e in entries if isinstance(e, Prediction)}) == last["predictions"]
    assert len({e.id for e in entries if isinstance(e, Outcome)}) == last["outcomes"]
