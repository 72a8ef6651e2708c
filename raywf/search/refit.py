"""Makes an ensemble's members, each fitted by a Ray task or merged here of its folds' models; the bundle."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from raywf.core.errors import describe_error
from raywf.core.niceness import yield_cpu
from raywf.core.records import Bundle, Member, Snapshot
from raywf.models.bundle import Draft, Predictor, plain_rows, write_bundle
from raywf.models.calibration import Calibration
from raywf.models.encoding import Encoder
from raywf.models.families import family
from raywf.models.family import Model, Problem, rows_for
from raywf.search.data import SearchData
from raywf.search.here import fit_here
from raywf.search.ledger import Ledger
from raywf.search.own import Families
from raywf.search.workers import placement

_REFERENCE_ROWS = 24
_TICK_S = 1.0
_TIMED_ROWS, _WARM_ROWS = 300, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to make the ensemble again on other rows; `nodes` are the labels of those that fits may run on.

    No more fits than `at_once` are asked for at a time, so that they start no nodes that come too late. Those
    whose trials took the most `seconds`, by id, begin first. Trials in `here` were fitted by this process,
    for want of time to start another or since they take less, and so are their members.
    """

    snapshot: Snapshot
    encoder: Encoder
    loss_scale: float | None
    quantile: float | None
    threads: int
    seed: int
    ledger: Ledger
    families: Families = field(default_factory=Families)
    members: tuple[Member, ...] = ()
    calibration: Calibration | None = None
    threshold: float = 0.5
    deadline: float = float("inf")
    nodes: dict[str, str] = field(default_factory=dict)
    at_once: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    here: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Made:
    """A member's model, and whether it is whole: not cut short by the deadline. Without one, the reason.

    `share` is how much of its rounds a model has.
    """

    model: Model | None
    whole: bool
    error: str = ""
    share: float = 1.0


Fits = dict[tuple[str, int], Any]


def start_fits(
    recipe: Recipe,
    data: Any,
    index: NDArray[np.int64] | None,
    *,
    problem: Problem,
    known: Fits | None = None,
    beside: Sequence[Any] = (),
    tick: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Start making each member; return a `Made` each, or the reference of a task that gives it.

    A member of folds is merged of their models, at once: that takes milliseconds, a worker's start seconds.
    Another is fitted on the rows at `index` (None: all). `data` is the object reference of the `SearchData`,
    and `problem` its. What `known` holds is not made again; it is added to. `beside` are fits that go on.
    `tick` is called each second of a wait.
    """
    fit = ray.remote(max_retries=2)(_fit_aside)
    rows = None if index is None else ray.put(index)
    made: Fits = {} if known is None else known
    running = list(beside)
    wanted = [m for m in recipe.members if (m.trial_id, m.folds) not in made]
    # fits go on while others are merged; the longest first, so that slots end together
    for member in sorted(wanted, key=lambda m: (m.folds > 0, -recipe.seconds.get(m.trial_id, 0.0))):
        if member.folds:
            made[member.trial_id, member.folds] = _merge(problem, member, recipe.ledger)
        elif member.trial_id in recipe.here:
            work = partial(_fit, ray.get(data), index, member, recipe)
            made[member.trial_id, member.folds] = fit_here(work, tick=tick)
        else:
            takes = recipe.families.resources(member.family, default=recipe.threads)
            placed = fit.options(**placement(takes, recipe.nodes, recipe.ledger.sweep_id))
            _await_room(recipe, running, tick)
            made[member.trial_id, member.folds] = placed.remote(data, rows, member, recipe)
            running.append(made[member.trial_id, member.folds])
    return [made[member.trial_id, member.folds] for member in recipe.members]


def _await_room(recipe: Recipe, fits: list[Any], tick: Callable[[], None]) -> None:
    """Wait until another fit may be asked for; not beyond the deadline, at which all are ended."""
    tasks = [fit for fit in fits if not isinstance(fit, Made)]
    at_once = len(tasks) + 1 if recipe.at_once is None else recipe.at_once
    while len(tasks) >= at_once and time.time() < recipe.deadline:
        tasks = ray.wait(tasks, num_returns=len(tasks) - at_once + 1, timeout=_TICK_S)[1]
        tick()


def await_fits(fits: list[Any], *, until: float, tick: Callable[[], None] = lambda: None) -> list[Made]:
    """Return what became of the fits; those that have not ended by `until` (`time.time()`) are ended.

    `tick` is called each second.
    """
    late = [fit for fit in fits if not isinstance(fit, Made)]
    left_s = until - time.time()
    while late:
        late = ray.wait(late, num_returns=len(late), timeout=max(0.0, min(_TICK_S, left_s)))[1]
        tick()
        left_s = until - time.time()
        if left_s <= 0:
            break
    for task in late:
        ray.cancel(task, force=True)
    return [
        Made(None, False, "its last fit did not end in time") if fit in late else _made(fit) for fit in fits
    ]


def _made(fit: Any) -> Made:
    if isinstance(fit, Made):
        return fit
    try:
        made: Made = ray.get(fit)
    except Exception as err:  # noqa: BLE001 - a worker died, or the user's model would not travel
        return Made(None, False, f"its last fit failed: {describe_error(err)}")
    return made


def finish_bundle(
    recipe: Recipe, made: list[Made], table: pa.Table, *, folder: Path, fitted_until: datetime | None
) -> Bundle:
    """Write the bundle of the fitted members into `folder`."""
    return write_bundle(_draft(recipe, made, table, fitted_until), folder)


def measure_row_ms(recipe: Recipe, made: list[Made], table: pa.Table) -> float:
    """Return the median time in which the fitted members answer a row of the table, in milliseconds.

    Each row is asked once: a processor answers the same few rows again twice as fast.
    """
    draft = _draft(recipe, made, table, None)
    predictor = Predictor(draft.bundle, draft.encoder, draft.models, calibration=draft.calibration)
    found = []
    for row in plain_rows(_spread(recipe, table, _TIMED_ROWS)):
        start = time.thread_time()  # others may have the CPU meanwhile
        predictor.predict_row(row)
        found.append(time.thread_time() - start)
    return 1e3 * float(np.median(found[_WARM_ROWS:] or found))


def _spread(recipe: Recipe, table: pa.Table, count: int) -> pa.Table:
    """Return that many rows from all over the table, of the model's columns."""
    step = max(1, table.num_rows // count)
    names = [c.name for c in recipe.snapshot.columns]
    return table.select(names).take(pa.array(range(0, table.num_rows, step)[:count]))


def _draft(recipe: Recipe, made: list[Made], table: pa.Table, fitted_until: datetime | None) -> Draft:
    snapshot = recipe.snapshot
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
        quantile=recipe.quantile,
        profile=snapshot.profile,
    )
    return Draft(
        bundle=bundle,
        encoder=recipe.encoder,
        models=tuple(m.model for m in made if m.model is not None),
        calibration=recipe.calibration,
        reference=_spread(recipe, table, _REFERENCE_ROWS),
    )


def _fit_aside(data: SearchData, index: NDArray[np.int64] | None, member: Member, recipe: Recipe) -> Made:
    yield_cpu()
    return _fit(data, index, member, recipe)


def _fit(data: SearchData, index: NDArray[np.int64] | None, member: Member, recipe: Recipe) -> Made:
    made = recipe.families.find(member.family)
    given = rows_for(made, data.rows)
    rows = given if index is None else given.take(index)
    threads = recipe.families.cpus(member.family, default=recipe.threads)
    problem = data.problem(threads=threads, deadline=recipe.deadline, seed=recipe.seed)
    try:
        model = made.fit(problem, rows, dict(member.params), valid=None, rounds=member.rounds)
    except Exception as err:  # noqa: BLE001 - a model library may raise anything, and not all of it unpickles
        return Made(None, False, f"its last fit failed: {describe_error(err)}")
    share = min(1.0, model.rounds / member.rounds) if member.rounds else 1.0
    return Made(model, not problem.is_over() or (member.rounds > 0 and share == 1.0), share=share)


def _merge(problem: Problem, member: Member, ledger: Ledger) -> Made:
    made, models = family(member.family), []
    try:
        for number in range(member.folds):
            with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
                ledger.write_model(member.trial_id, number, Path(folder))
                models.append(made.load(problem, Path(folder)))
        return Made(made.merge(models), True)
    except Exception as err:  # noqa: BLE001 - each library has errors of its own for a file it cannot read
        return Made(None, False, f"its folds' models do not merge: {describe_error(err)}")
