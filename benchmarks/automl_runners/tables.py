"""The tables of the comparison: their labels and tasks from the data folder's index, and their splits."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.model_selection import train_test_split

QUICK = (
    "tab_adult",
    "tab_credit_g",
    "tab_telco_churn",
    "tab_satimage",
    "reg_diamonds",
    "reg_california_housing",
)
METRICS = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
TEST_SHARE = 0.25
_LEAKS = {"tab_bank_marketing": ("duration",)}  # known only once the call is over
_REPOSITORY = Path(__file__).resolve().parents[2]


class NoTables(Exception):  # noqa: N818 it says what is wrong
    """The data folder or a table that was asked for is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One prediction problem: a file, its label column and the task."""

    name: str
    path: Path
    label: str
    task: str

    @property
    def metric(self) -> str:
        return METRICS[self.task]


def find_tables(names: Sequence[str] = ()) -> list[Table]:
    """Return the named tables (none named: all) of the folder that ``RAYWFTEST_DATA`` gives, in its order.

    Raises:
        NoTables: if the folder has no index, or a named table is not in it.
    """
    given = os.environ.get("RAYWFTEST_DATA")
    folder = Path(given) if given else _REPOSITORY.parent / "shared" / "data"
    index = folder / "index.json"
    if not index.is_file():
        raise NoTables(f"no {index}; set RAYWFTEST_DATA to the folder of the test data")
    found = [
        Table(
            name=entry["name"],
            path=folder / entry["name"] / "data.parquet",
            label=entry["target"],
            task=entry["task"],
        )
        for entry in json.loads(index.read_text())
        if entry["name"].startswith(("tab_", "reg_"))
    ]
    known = {table.name for table in found}
    unknown = sorted(set(names) - known)
    if unknown:
        raise NoTables(f"no table {', '.join(unknown)} in {index}; there are {', '.join(sorted(known))}")
    return [table for table in found if not names or table.name in names]


def write_split(table: Table, seed: int, folder: Path) -> tuple[Path, Path]:
    """Write ``train.parquet`` and ``test.parquet`` with the types of the file, without its leaks.

    The test set is a quarter of the rows, stratified by class, the same for every contender of a seed.
    """
    rows = pq.read_table(table.path).drop_columns(list(_LEAKS.get(table.name, ())))
    labels = None if table.task == "regression" else rows.column(table.label).to_pandas()
    train, test = train_test_split(
        np.arange(rows.num_rows), test_size=TEST_SHARE, random_state=seed, stratify=labels
    )
    paths = folder / "train.parquet", folder / "test.parquet"
    for path, chosen in zip(paths, (train, test), strict=True):
        pq.write_table(rows.take(pa.array(chosen)), path)
    return paths
