"""The look whether a retraining would help: a quick model of what was known then, beside the champion."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.clock import to_microseconds
from raywf.core.codec import encode
from raywf.core.errors import RegistryError
from raywf.core.journal import LOOKED, Journal
from raywf.core.metrics import bounded_loss
from raywf.core.own import workflow_metric
from raywf.core.probe import Probe, look_since
from raywf.core.records import Decision, Snapshot
from raywf.core.settings import Workflow
from raywf.models.bundle import Predictor, load_bundle
from raywf.models.encoding import fit_encoder
from raywf.models.families import family
from raywf.models.family import Problem, Rows
from raywf.registry.registry import CHAMPION, open_registry
from raywf.search.data import row_weights
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import read_snapshot
from raywf.snapshots.convert import time_us

_ROWS, _SCORED = 20_000, 4_000  # fitted on: half of them the newest, the others drawn; scored
_ROUNDS, _ROUNDS_BY_CLASS = 40, 20
_PARAMS = {"num_leaves": 31, "learning_rate": 0.15, "min_data_in_leaf": 20}
_FEWEST = 30
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A snapshot's rows as a look sees them: `then` were known at the look before, `new` are so since.

    `seen` are those of `then` that are no newer than what the champion was fitted on; all rows are `growth`
    times those.
    """

    then: Index
    new: Index
    seen: Index
    growth: float | None


def look(workflow: Workflow, decision: Decision) -> Probe:
    """Carry a decision to look out; Ray must be initialised. The journal has what was found.

    Raises:
        RaywfError: if the tables, the registry or the champion's bundle cannot be read.
    """
    registry = open_registry(workflow)
    champion = registry.find(CHAMPION)
    if champion is None:
        raise RegistryError(f"workflow {workflow.name!r} has no champion to look at")
    snapshot = build_snapshot(workflow, as_of=decision.time)
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
        bundle = registry.fetch(champion, Path(folder))
        predictor = load_bundle(bundle, digest=champion.digest, trust=workflow.trusts_own_code)
        found = probe(
            workflow,
            snapshot,
            read_snapshot(snapshot),
            predictor,
            version=champion.version,
            since=look_since(decision),
        )
    Journal(workflow.stores.root, workflow.name).record(decision, LOOKED, figures=encode(found))
    return found


def probe(
    workflow: Workflow,
    snapshot: Snapshot,
    table: pa.Table,
    champion: Predictor,
    *,
    version: str,
    since: datetime,
) -> Probe:
    """Fit a quick model on the snapshot's rows that were known at `since`; score it and the champion.

    A second one, on the rows that the champion can have seen, shows what the newer ones are worth. All are
    scored on the newest rows that are known only now, at most 4,000, which none has seen. Where they, or the
    others, are fewer than 30, or lack columns that the champion reads, or are of another task, there is
    nothing to tell: `rows` is 0.
    """
    assert snapshot.as_of is not None
    start = time.process_time()
    rows = split(snapshot, table, since=since, seen_until=champion.bundle.fitted_until)
    found = _Losses()
    same = champion.can_score(table) and champion.bundle.task == snapshot.task
    if same and min(len(rows.then), len(rows.new)) >= _FEWEST:
        found = _compare(workflow, snapshot, table, champion, rows)
    return Probe(
        version=version,
        since=since,
        time=snapshot.as_of,
        rows=found.rows,
        champion=found.champion,
        quick=found.quick,
        error=found.error,
        cpu_s=time.process_time() - start,
        former=found.former,
        former_error=found.former_error,
        growth=rows.growth if workflow.validate.window is None else None,
        thin=len(rows.new) < _FEWEST,
    )


def split(
    snapshot: Snapshot, table: pa.Table, *, since: datetime, seen_until: datetime | None = None
) -> Looked:
    """Return which rows a snapshot as of `since` would have had, and the newest of the others.

    Of the former those until `seen_until` are told apart, none where that is None.
    """
    cut = to_microseconds(since)
    times = time_us(table.column("__time"), missing=0)
    told = "__label_time" in table.column_names
    known = time_us(table.column("__label_time"), missing=0) if told else times
    then = (known <= cut) & (times <= cut - round(snapshot.maturity_s * 1e6))
    seen = np.zeros_like(then) if seen_until is None else then & (times <= to_microseconds(seen_until))
    growth = table.num_rows / int(seen.sum()) if seen.any() else None
    return Looked(then=_some(then), new=np.flatnonzero(~then)[-_SCORED:], seen=_some(seen), growth=growth)


def _some(marked: NDArray[np.bool_]) -> Index:
    """Return the places of marked rows; of more than 20,000 half are the newest and half are drawn."""
    found = np.flatnonzero(marked)
    if len(found) <= _ROWS:
        return found
    newest, older = found[-_ROWS // 2 :], found[: -_ROWS // 2]
    drawn = np.random.default_rng(0).choice(older, _ROWS // 2, replace=False)
    return np.sort(np.concatenate([drawn, newest]))


def spread(scores: NDArray[np.float64], of: tuple[str, ...], to: tuple[str, ...]) -> NDArray[np.float64]:
    """Return scores of classes `of` as scores of classes `to`: none for a class that the model knows not.

    >>> spread(np.array([[0.2, 0.8]]), ("a", "c"), ("a", "b", "c")).tolist()
    [[0.2, 0.0, 0.8]]
    """
    if of == to or scores.shape[1] == 1:
        return scores
    found = np.zeros((len(scores), len(to)))
    for i, name in enumerate(of):
        if name in to:
            found[:, to.index(name)] = scores[:, i]
    return found


def weigh(table: pa.Table, weights: NDArray[np.float64]) -> pa.Table:
    """Return the table with rows that count so much, beside what they counted."""
    if "__weight" in table.column_names:
        weights = weights * np.asarray(table.column("__weight").to_numpy(), dtype=np.float64)
        table = table.drop_columns(["__weight"])
    return table.append_column("__weight", pa.array(weights))


def quick_answers(
    workflow: Workflow,
    snapshot: Snapshot,
    table: pa.Table,
    *,
    fitted: Index,
    scored: Index,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return a quick model's scores ``(n_scored, k)``: small trees, made in a tenth of a second.

    Rows count as in a search, by the table's weights and the classes': a champion would else lose beside a
    model that was asked for something else. `weights` of the rows that it is fitted on come to that.
    """
    some = table.take(pa.array(fitted))
    some = some if weights is None else weigh(some, weights)
    encoder = fit_encoder(some, snapshot.columns)
    metric = workflow_metric(workflow)
    problem = Problem(
        task=snapshot.task,
        n_classes=len(snapshot.classes),
        sizes=encoder.sizes,
        quantile=metric.quantile,
    )
    rounds = _ROUNDS_BY_CLASS if problem.width > 1 else _ROUNDS
    labels = np.asarray(some.column("__label").to_numpy(), dtype=np.float64)
    given = Rows(encoder.table(some), labels, row_weights(some, labels, workflow.search, metric))
    quick = family("lightgbm").fit(problem, given, dict(_PARAMS), valid=None, rounds=rounds)
    return np.asarray(quick.predict(encoder.table(table.take(pa.array(scored)))))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Losses:
    """What a look found, as `Probe` has it."""

    rows: int = 0
    champion: float = 0.0
    quick: float = 0.0
    error: float = 0.0
    former: float | None = None
    former_error: float | None = None


def _compare(
    workflow: Workflow, snapshot: Snapshot, table: pa.Table, champion: Predictor, rows: Looked
) -> _Losses:
    labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)[rows.new]
    scale = champion.bundle.loss_scale if snapshot.task == "regression" else None
    given = champion.predict_table(table.take(pa.array(rows.new)))
    answers = spread(given, champion.bundle.classes, snapshot.classes)
    losses = partial(bounded_loss, labels, scale=scale, quantile=workflow_metric(workflow).quantile)
    theirs = losses(answers)

    def quick_losses(fitted: Index) -> NDArray[np.float64]:
        quick = quick_answers(workflow, snapshot, table, fitted=fitted, scored=rows.new)
        return losses(quick)

    ours = quick_losses(rows.then)
    found = _Losses(
        rows=len(ours),
        champion=float(theirs.mean()),
        quick=float(ours.mean()),
        error=float((theirs - ours).std() / np.sqrt(len(ours))),
    )
    if len(rows.seen) < _FEWEST:
        return found
    former = ours if len(rows.seen) == len(rows.then) else quick_losses(rows.seen)
    error = float((former - ours).std() / np.sqrt(len(ours)))
    return replace(found, former=float(former.mean()), former_error=error)
