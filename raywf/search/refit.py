"""Makes an ensemble's members, by fitting them or of their folds' models, one Ray task each; the bundle."""

from __future__ import annotations

import dataclasses
import tempfile
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
from raywf.search.ledger import Ledger
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
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Made:
    """A member's model, and whether it is whole: not cut short by the deadline."""

    model: Model
    whole: bool


def start_fits(recipe: Recipe, data: Any, index: NDArray[np.int64] | None) -> list[Any]:
    """Start making each member; return the references of what the tasks give: a `Made` each.

    A member of folds is merged of their models, another is fitted on the rows at `index` (None: all). `data`
    is the object reference of the `SearchData`.
    """
    fit = ray.remote(num_cpus=recipe.threads, max_retries=2)(_fit)
    merge = ray.remote(num_cpus=recipe.threads, max_retries=2)(_merge)
    rows = None if index is None else ray.put(index)
    return [
        merge.remote(data, member, recipe.ledger) if member.folds else fit.remote(data, rows, member, recipe)
        for member in recipe.members
    ]


def finish_bundle(
    recipe: Recipe, made: list[Made], table: pa.Table, *, folder: Path, fitted_until: datetime | None
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
        models=tuple(m.model for m in made),
        calibration=recipe.calibration,
        reference=reference,
    )
    return write_bundle(draft, folder)


def _fit(data: SearchData, index: NDArray[np.int64] | None, member: Member, recipe: Recipe) -> Made:
    yield_cpu()
    rows = data.rows if index is None else data.rows.take(index)
    problem = dataclasses.replace(
        _problem(data), threads=recipe.threads, deadline=recipe.deadline, seed=recipe.seed
    )
    model = family(member.family).fit(problem, rows, dict(member.params), valid=None, rounds=member.rounds)
    return Made(model, not problem.is_over())


def _merge(data: SearchData, member: Member, ledger: Ledger) -> Made:
    yield_cpu()
    made, problem = family(member.family), _problem(data)
    models = []
    for number in range(member.folds):
        with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
            ledger.write_model(member.trial_id, number, Path(folder))
            models.append(made.load(problem, Path(folder)))
    return Made(made.merge(models), True)


def _problem(data: SearchData) -> Problem:
    return Problem(task=data.task, n_classes=data.n_classes, sizes=data.sizes)
