"""Two tables compared by tasks of a cluster: what comes of it is what one process finds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
import ray

from raywf.core.errors import SourceError
from raywf.loop import slabs
from raywf.loop.drift import DriftOptions, Side, compare_tables, find_side

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("ray_session")]


def no_workflow() -> Any:
    raise AssertionError("both tables are files")


def side(folder: Path, name: str, seed: int, shift: float) -> Side:
    """Write a table of four files and return it."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir()
    for i in range(4):
        table = pa.table({"x": rng.normal(shift, 1, 3_000), "s": rng.choice(list("abc"), 3_000)})
        pq.write_table(table, folder / name / f"{i}.parquet", row_group_size=800)
    return find_side(str(folder / name), no_workflow)


def on_cluster() -> DriftOptions:
    return DriftOptions(address=ray.get_runtime_context().gcs_address)


def test_tasks_find_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last figure, though the tasks end in any order."""
    monkeypatch.setattr(slabs, "SLAB_BYTES", 20_000)
    before, after = side(tmp_path, "a", 0, 0.0), side(tmp_path, "b", 1, 0.5)
    found = compare_tables(before, after, on_cluster())
    assert found == compare_tables(before, after)
    assert found.drifted == ("x",)


def test_csv_by_tasks(tmp_path: Path) -> None:
    """A CSV file is read by tasks too."""
    parquet = side(tmp_path, "a", 0, 0.0)
    arrow_csv.write_csv(pq.read_table(tmp_path / "a"), tmp_path / "a.csv")
    found = compare_tables(parquet, find_side(str(tmp_path / "a.csv"), no_workflow), on_cluster())
    assert [c.effect for c in found.columns] == [0.0, 0.0]


def test_a_file_that_goes_away(tmp_path: Path) -> None:
    """A task's error comes home as what it is."""
    whole = side(tmp_path, "a", 0, 0.0)
    (tmp_path / "a" / "2.parquet").unlink()
    gone = dataclasses.replace(whole)
    with pytest.raises(SourceError, match=r"2\.parquet cannot be read"):
        compare_tables(gone, gone, on_cluster())
