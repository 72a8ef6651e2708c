"""Fits an ensemble's members on given rows, one Ray task a member, and writes the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from raywf.core.records import Bundle, Member, Snapshot
from raywf.models.bundle import Draft, write_bundle
from raywf.models.calibration import Calibration
from raywf.models.encoding import Encoder
from raywf.models.families import family
from raywf.models.family import Model, Problem
from raywf.search.data import SearchData
from raywf.search.niceness import yield_cpu

_REFERENCE_ROWS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to make the ensemble again on other rows."""

    snapshot: Snapshot
    members: tuple[Member, ...]
    calibration: Calibration | None
    encoder: Encoder
    loss_scale: float | None
    threads: int
    deadline: float
    seed: int


def start_fits(recipe: Recipe, data: Any, index: NDArray[np.int64] | None) -> list[Any]:
    """Start fitting each member on the rows at `index` (None: all); return the tasks' references.

    `data` is the object reference of the `SearchData`.
    """
    task = ray.remote(num_cpus=recipe.threads, max_retries=2)(_fit)
    rows = None if index is None else ray.put(index)
    return [
        task.remote(data, rows, member, recipe.threads, recipe.deadline, recipe.seed)
        for member in recipe.members
    ]


def is_whole(recipe: Recipe, models: list[Model]) -> bool:
    """Return whether no fit was cut short by the deadline."""
    return all(m.rounds >= member.rounds for m, member in zip(models, recipe.members, strict=True))


def finish_bundle(
    recipe: Recipe, models: list[Model], table: pa.Table, *, folder: Path, fitted_until: datetime | None
) -> Bundle:
    """Write the bundle of the fitted members into `folder`."""
    snapshot = recipe.snapshot
    step = max(1, table.num_rows // _REFERENCE_ROWS)
    reference = table.select([c.name for c in snapshot.columns]).take(
        pa.array(range(0, table.num_rows, step)[:_REFERENCE_ROWS])
    )
    bundle = Bundle(
        uri="",
        digest="",
        task=snapshot.task,
        columns=snapshot.columns,
        classes=snapshot.classes,
        members=recipe.members,
        snapshot_id=snapshot.id,
        fitted_until=fitted_until,
        loss_scale=recipe.loss_scale,
    )
    draft = Draft(
        bundle=bundle,
        encoder=recipe.encoder,
        models=tuple(models),
        calibration=recipe.calibration,
        reference=reference,
    )
    return write_bundle(draft, folder)


def loss_scale(labels: NDArray[np.float64]) -> float:
    """Return the error that counts as wholly wrong: the 99th percentile of the distance to the median."""
    return float(np.quantile(np.abs(labels - np.median(labels)), 0.99)) or 1.0


def _fit(
    data: SearchData,
    index: NDArray[np.int64] | None,
    member: Member,
    threads: int,
    deadline: float,
    seed: int,
) -> Model:
    yield_cpu()
    rows = data.rows if index is None else data.rows.take(index)
    problem = Problem(
        task=data.task,
        n_classes=data.n_classes,
        sizes=data.sizes,
        threads=threads,
        deadline=deadline,
        seed=seed,
    )
    return family(member.family).fit(problem, rows, dict(member.params), valid=None, rounds=member.rounds)
