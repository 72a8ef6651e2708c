"""Makes an ensemble's members, by fitting them or of their folds' models, one Ray task each; the bundle."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
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
from raywf.models.family import Model
from raywf.search.data import SearchData
from raywf.search.ledger import Ledger
from raywf.search.niceness import yield_cpu
from raywf.search.own import Families

_REFERENCE_ROWS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to make the ensemble again on other rows."""

    snapshot: Snapshot
    members: tuple[Member, ...]
    calibration: Calibration | None
    threshold: float
    encoder: Encoder
    loss_scale: float | None
    threads: int
    deadline: float
    seed: int
    ledger: Ledger
    families: Families = field(default_factory=Families)


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
    fit, merge = ray.remote(max_retries=2)(_fit), ray.remote(max_retries=2)(_merge)
    rows = None if index is None else ray.put(index)
    made = []
    for member in recipe.members:
        cpus = recipe.families.cpus(member.family, default=recipe.threads)
        if member.folds:
            made.append(merge.options(num_cpus=cpus).remote(data, member, recipe.ledger))
        else:
            gpus = recipe.families.gpus(member.family)
            made.append(fit.options(num_cpus=cpus, num_gpus=gpus).remote(data, rows, member, recipe))
    return made


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
        threshold=recipe.threshold,
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
    threads = recipe.families.cpus(member.family, default=recipe.threads)
    problem = data.problem(threads=threads, deadline=recipe.deadline, seed=recipe.seed)
    made = recipe.families.find(member.family)
    model = made.fit(problem, rows, dict(member.params), valid=None, rounds=member.rounds)
    return Made(model, not problem.is_over())


def _merge(data: SearchData, member: Member, ledger: Ledger) -> Made:
    yield_cpu()
    made, problem = family(member.family), data.problem()
    models = []
    for number in range(member.folds):
        with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
            ledger.write_model(member.trial_id, number, Path(folder))
            models.append(made.load(problem, Path(folder)))
    return Made(made.merge(models), True)
