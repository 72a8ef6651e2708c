"""What a snapshot makes of tables that are odd: features of the right kind, or one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raywf.core.errors import SourceError, ValidationError
from raywf.core.settings import SpineSettings, StoreSettings, ValidateSettings, Workflow
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import read_snapshot

pytestmark = pytest.mark.usefixtures("ray_session")
ROWS = 300
LABELS = np.where(np.arange(ROWS) % 3 == 0, "yes", "no")


def build(folder: Path, frame: pd.DataFrame, *, task: str = "binary", **validate: Any) -> Any:
    """Build the snapshot of a table; return its record and its rows."""
    frame.to_csv(folder / "t.csv", index=False)
    workflow = Workflow(
        name="odd",
        task=task,  # type: ignore[arg-type]
        spine=SpineSettings(path=str(folder / "t.csv"), label="y"),
        validate=ValidateSettings(**validate),
        stores=StoreSettings(root=str(folder / "store")),
    )
    snapshot = build_snapshot(workflow)
    return snapshot, read_snapshot(snapshot)


def test_values_of_every_odd_kind(tmp_path: Path) -> None:
    """Text, dates as text, infinities, ten thousand names, columns that are empty or constant."""
    draw = np.random.default_rng(0)
    days = pd.date_range("2020-01-01", periods=ROWS).strftime("%d/%m/%Y")
    frame = pd.DataFrame(
        {
            "number": np.where(np.arange(ROWS) % 50 == 0, "inf", draw.normal(size=ROWS).astype(str)),
            "iso": pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d"),
            "days": days,
            "text": [f"a long note, number {i}" for i in draw.integers(0, 10_000, ROWS)],
            "empty": [None] * ROWS,
            "constant": ["same"] * ROWS,
            "y": LABELS,
        }
    )
    snapshot, rows = build(tmp_path, frame)
    kinds = {c.name: c.kind for c in snapshot.columns}
    assert [kinds[n] for n in ("number", "iso", "text", "constant")] == [
        "number",
        "time",
        "category",
        "category",
    ]
    assert rows.column("number").null_count == ROWS // 50
    told = " ".join(snapshot.warnings)
    assert kinds["days"] == "category"
    assert (
        "'days' looks like dates that are not ISO 8601 ('01/01/2020'), which are read as categories" in told
    )
    for part in ("'text' looks like an identifier", "'empty' is missing in every", "'constant' has the same"):
        assert part in told


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    """Blank ones of classes; blank, infinite ones of numbers."""
    x = np.random.default_rng(0).normal(size=ROWS)
    labels = np.where(np.arange(ROWS) % 10 == 0, "", LABELS)
    assert build(tmp_path, pd.DataFrame({"x": x, "y": labels}))[0].rows == ROWS * 9 // 10
    values = np.arange(ROWS) * 1.0
    values[:30], values[30:40] = np.nan, np.inf
    snapshot, rows = build(tmp_path, pd.DataFrame({"x": x, "y": values}), task="regression")
    assert snapshot.rows == ROWS - 40
    assert np.isfinite(rows.column("__label").to_numpy()).all()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["no"] * ROWS, r"label 'y' has 1 classes \('no'\); a binary task needs exactly two"),
        (["yes", *["no"] * (ROWS - 1)], r"class 'yes' of label 'y' has 1 of 300 rows \(0\.333%\), below"),
        ([None] * ROWS, "the label 'y' is missing in every row"),
    ],
)
def test_labels_that_teach_nothing(labels: list[Any], told: str, tmp_path: Path) -> None:
    """One class, a class seen once, none at all."""
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=ROWS), "y": labels})
    with pytest.raises((ValidationError, SourceError), match=told):
        build(tmp_path, frame, min_label_share=0.005)


def test_two_thousand_columns(tmp_path: Path) -> None:
    """All of them are looked at and kept."""
    values = np.random.default_rng(0).normal(size=(ROWS, 2000)).round(3)
    frame = pd.DataFrame(values, columns=[f"n{i}" for i in range(2000)])
    frame["y"] = LABELS
    snapshot, rows = build(tmp_path, frame)
    assert len(snapshot.columns) == 2000
    assert rows.num_rows == ROWS
