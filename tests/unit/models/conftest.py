"""Small invented tables, and bundles of each family fitted on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.ids import digest_bytes
from raywf.core.records import Bundle, Column
from raywf.models.bundle import Draft, single_member, write_bundle
from raywf.models.calibration import Calibration
from raywf.models.encoding import fit_encoder
from raywf.models.families import family
from raywf.models.family import Model, Problem, Rows

COLUMNS = (
    Column(name="size", kind="number"),
    Column(name="empty", kind="number"),
    Column(name="lane", kind="category"),
    Column(name="asked", kind="time"),
)
CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
ROUNDS = {"lightgbm": 6, "xgboost": 6, "catboost": 8, "extratrees": 10, "torch": 40}
PARAMS: dict[str, dict[str, Any]] = {
    "lightgbm": {"min_data_in_leaf": 5, "num_leaves": 7},
    "xgboost": {"max_depth": 3},
    "catboost": {"depth": 3, "learning_rate": 0.3},
    "torch": {"hidden": [8], "lr": 0.03},
}
START = datetime(2024, 1, 1, tzinfo=UTC)


def make_table(rows: int = 160) -> pa.Table:
    """Return a table with missing values, a wholly missing column and an instant."""
    draw = np.random.default_rng(0)
    size = draw.normal(size=rows)
    return pa.table(
        {
            "size": pa.array([None if i % 9 == 0 else float(v) for i, v in enumerate(size)], pa.float64()),
            "empty": pa.nulls(rows, pa.float64()),
            "lane": pa.array([None if i % 11 == 0 else "nsw"[i % 3] for i in range(rows)]),
            "asked": pa.array(
                [None if i % 13 == 0 else START + timedelta(hours=7 * i) for i in range(rows)],
                pa.timestamp("us", "UTC"),
            ),
        }
    )


def make_labels(task: str, rows: int = 160) -> np.ndarray[Any, Any]:
    """Return labels that depend on the row's lane and size."""
    base = np.arange(rows) % 3
    if task == "regression":
        return base * 10.0 + np.random.default_rng(1).normal(size=rows)
    return (base > 0).astype(float) if task == "binary" else base.astype(float)


@dataclass(frozen=True)
class Fitted:
    """A model with the problem and the rows that it was fitted on."""

    problem: Problem
    table: pa.Table
    rows: Rows
    model: Model


def fit(
    name: str,
    task: str,
    *,
    keep: Sequence[int] | None = None,
    weights: np.ndarray[Any, Any] | None = None,
    labels: np.ndarray[Any, Any] | None = None,
    params: dict[str, Any] | None = None,
    **problem: Any,
) -> Fitted:
    """Fit a family on the rows of a table, or on those whose class is in `keep`."""
    table, labels = make_table(), make_labels(task) if labels is None else labels
    if keep is not None:
        index = np.flatnonzero(np.isin(labels, keep))
        table, labels = table.take(pa.array(index)), labels[index]
    encoder = fit_encoder(table, COLUMNS)
    stated = Problem(task=task, n_classes=len(CLASSES[task]), sizes=encoder.sizes, **problem)
    rows = Rows(encoder.table(table), labels, weights)
    rounds = ROUNDS.get(name, 0)
    given = {**PARAMS.get(name, {}), **(params or {})}
    model = family(name).fit(stated, rows, given, valid=None, rounds=rounds)
    return Fitted(stated, table, rows, model)


def write(fitted: Fitted, name: str, folder: Path, *, calibration: Calibration | None = None) -> Bundle:
    """Write the bundle of one fitted model."""
    task = fitted.problem.task
    bundle = Bundle(
        uri="",
        digest="",
        task=task,
        columns=COLUMNS,
        classes=CLASSES[task],
        members=single_member(name),
        snapshot_id="snapshot",
        fitted_until=START,
        loss_scale=1.0 if task == "regression" else None,
    )
    draft = Draft(
        bundle=bundle,
        encoder=fit_encoder(fitted.table, COLUMNS),
        models=(fitted.model,),
        calibration=calibration,
        reference=fitted.table.slice(0, 12),
    )
    return write_bundle(draft, folder)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Fitted, Bundle]]:
    """A fitted model and its bundle by family and task, each made once."""
    made: dict[tuple[str, str], tuple[Fitted, Bundle]] = {}

    def get(name: str, task: str) -> tuple[Fitted, Bundle]:
        if (name, task) not in made:
            fitted = fit(name, task)
            made[name, task] = fitted, write(fitted, name, tmp_path_factory.mktemp(name) / task)
        return made[name, task]

    return get


@pytest.fixture
def bundle_copy(written: Any, tmp_path: Path) -> Path:
    """The folder of a bundle that a test may break."""
    return Path(shutil.copytree(written("linear", "binary")[1].uri, tmp_path / "bundle"))


def seal(folder: Path) -> None:
    """Write the digests of a changed bundle again, as one would who wants the change to pass."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "digests.json")
    listing = {p.relative_to(folder).as_posix(): digest_bytes(p.read_bytes()) for p in files}
    (folder / "digests.json").write_text(json.dumps(listing))
