"""Reads what a finished search or a registered version left behind, and has it explained; needs no Ray."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raywf.core.codec import DecodeError, decode
from raywf.core.errors import NoVersionError, RaywfError, SearchError, describe_error, did_you_mean
from raywf.core.explanation import Explanation, ImportanceReport, LearningPoint, SliceReport
from raywf.core.metrics import Metric, loss_scale
from raywf.core.own import named_metric
from raywf.core.records import Bundle, ModelVersion, Snapshot, Sweep
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.loop.span import part_of
from raywf.models.bundle import Predictor, load_bundle
from raywf.registry.client import tracking_uri
from raywf.registry.registry import CHALLENGER, CHAMPION, PREVIOUS, open_registry
from raywf.search.data import SearchData
from raywf.search.explain.blocks import fold_blocks, sample_block
from raywf.search.explain.curves import learning_curve, search_progress
from raywf.search.explain.cuts import cut_rows
from raywf.search.explain.heldout import out_of_fold
from raywf.search.explain.importance import Ground, permutation_importance
from raywf.search.explain.parameters import parameter_ranges
from raywf.search.explain.slices import score_slices
from raywf.search.explain.standings import rank_trials
from raywf.search.layout import lay_out_again
from raywf.search.ledger import Ledger
from raywf.search.own import find_families
from raywf.snapshots.catalog import list_snapshots, load_snapshot, read_snapshot

_ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
_LEAST_SHARE = 0.5
_EACH_S = 5.0  # between two lines of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How much is asked for: rows at most for importance, and whether members are fitted for a curve."""

    rows: int = 2_000
    learning_curve: bool = False
    say: Callable[[str], None] = field(default=lambda _text: None)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explained: a sweep and, where one was registered of it, the version."""

    sweep: Sweep
    version: ModelVersion | None


def explain(workflow: Workflow, target: str | None = None, *, wanted: Wanted | None = None) -> Explanation:
    """Explain a version, an alias or a sweep; by default the newest sweep.

    What cannot be told, since files are gone or are of an older kind, becomes a note.

    Raises:
        RaywfError: if there is no such sweep or version.
    """
    wanted = wanted or Wanted()
    subject = find_subject(workflow, target)
    sweep = subject.sweep
    made = Explanation(
        workflow=workflow.name,
        version=subject.version.version if subject.version else None,
        sweep=sweep,
        standings=rank_trials(sweep),
        parameters=parameter_ranges(sweep),
    )
    notes: list[str] = []
    with _noting(notes):
        snapshot = load_snapshot(Store(workflow.stores.root), workflow.name, sweep.snapshot_id)
        table = part_of(read_snapshot(snapshot), sweep.span).table
        wanted.say(f"snapshot {snapshot.id}: {snapshot.rows:,} rows, {len(snapshot.columns)} features")
        ledger = Ledger(workflow.stores.root, sweep.id)
        metric = named_metric(workflow, sweep.metric)
        data = lay_out_again(ledger, snapshot, table, metric=metric)
        made = _look(workflow, subject, _Read(snapshot, table, data, ledger, metric), made, wanted, notes)
    return replace(made, notes=tuple(notes))


def find_subject(workflow: Workflow, target: str | None) -> Subject:
    """Return the sweep, and the newest version made of it, that a version's number, an alias or a sweep's id
    names; without any the newest sweep of the workflow.

    Raises:
        NoVersionError: if nothing has that name.
        SearchError: if no search has finished, or the version's sweep is gone.
    """
    versions = known_versions(workflow)
    by_name = {v.version: v for v in versions} | {a: v for v in versions for a in v.aliases}
    version = by_name.get(target or "")
    if version is not None:
        sweep = _read_sweep(workflow, version.sweep_id)
        if sweep is None:
            raise SearchError(f"the sweep {version.sweep_id} that made version {target} is gone")
        return Subject(sweep, version)
    sweep = next(_sweeps(workflow, target), None)
    if sweep is not None:
        return Subject(sweep, next((v for v in reversed(versions) if v.sweep_id == sweep.id), None))
    if target is None:
        raise SearchError(f"{workflow.name!r} has no finished search; next: raywf search, or raywf run")
    if target in _ALIASES:
        raise NoVersionError(f"{workflow.name!r} has no {target}; next: raywf models list")
    known = {*by_name, *(s.id for s in _sweeps(workflow, None))}
    hint = did_you_mean(target, known) if known else "; next: raywf search, or raywf run"
    raise NoVersionError(f"{workflow.name!r} has no version and no finished sweep {target!r}{hint}")


@dataclass(frozen=True, slots=True)
class _Read:
    """The rows that everything rests on."""

    snapshot: Snapshot
    table: pa.Table
    data: SearchData
    ledger: Ledger
    metric: Metric


def _look(
    workflow: Workflow, subject: Subject, read: _Read, made: Explanation, wanted: Wanted, notes: list[str]
) -> Explanation:
    """Return the explanation with all that rows tell."""
    sweep = subject.sweep
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
        predictor = None
        with _noting(notes):
            predictor = _load(workflow, subject, Path(folder))
        with _noting(notes):
            scale = predictor.bundle.loss_scale if predictor else _scale(read.data)
            made = replace(made, slices=_slices(read, sweep, scale))
            wanted.say(f"slices: {len(made.slices.slices) if made.slices else 0} looked at")
        if predictor is not None:
            with _noting(notes):
                found = _importance(workflow, read, sweep, predictor, wanted)
                made = replace(made, importance=found)
    with _noting(notes):
        wanted.say(f"progress of {len(sweep.trials)} trials")
        made = replace(made, progress=search_progress(read.data, sweep, read.ledger, metric=read.metric))
    if wanted.learning_curve:
        with _noting(notes):
            wanted.say(f"learning curve of {sweep.members[0].trial_id}: four fits")
            made = replace(made, learning=_learning(workflow, read, sweep))
    return made


def _slices(read: _Read, sweep: Sweep, scale: float | None) -> SliceReport:
    held = out_of_fold(read.data, sweep, read.ledger)
    cuts = cut_rows(read.snapshot, read.table.take(pa.array(held.index)))
    return score_slices(held, cuts, metric=read.metric, scale=scale)


def _importance(
    workflow: Workflow, read: _Read, sweep: Sweep, predictor: Predictor, wanted: Wanted
) -> ImportanceReport:
    if predictor.reads_table:
        raise SearchError("no importance: a member reads the columns as they are")
    ground = _ground(workflow, read, sweep, predictor, wanted.rows)
    columns, begun = len(predictor.bundle.columns), [time.monotonic(), 0]

    def tick(name: str) -> None:
        begun[1] += 1
        if begun[1] == 1 or time.monotonic() - begun[0] > _EACH_S:
            begun[0] = time.monotonic()
            wanted.say(f"importance: {name}, {begun[1]:.0f} of {columns} columns")

    return permutation_importance(
        ground, predictor.encoder, read.metric, seed=workflow.search.seed, tick=tick
    )


def _ground(workflow: Workflow, read: _Read, sweep: Sweep, predictor: Predictor, most: int) -> Ground:
    """Return the gate's rows, if the bundle was not fitted on them; else the folds with their own models,
    where at least half of the ensemble has kept them; else any rows.
    """
    seed, data = workflow.search.seed, read.data
    held = _is_held(predictor.bundle, data)
    blocks, share = ([], 0.0) if held else fold_blocks(data, sweep, read.ledger, most=most, seed=seed)
    if share >= _LEAST_SHARE:
        return Ground(blocks, "folds", share)
    rows = replace(data.rows, X=predictor.encoder.table(read.table))
    index = data.gate if held else np.arange(len(rows.y))
    block = sample_block(predictor.predict_matrix, rows, index, most=most, seed=seed)
    return Ground([block], "gate" if held else "fitted")


def _is_held(bundle: Bundle, data: SearchData) -> bool:
    """Return whether the gate's rows were not fitted by a bundle: of later times, or without times at all,
    where a bundle is never fitted on them.
    """
    if not len(data.gate):
        return False
    if data.times is None:
        return True
    return bundle.fitted_until is not None and bool(
        (data.times[data.gate] > bundle.fitted_until.timestamp() * 1e6).all()
    )


def _learning(workflow: Workflow, read: _Read, sweep: Sweep) -> tuple[LearningPoint, ...]:
    search, member = workflow.search, sweep.members[0]
    own = search.models.get(member.family)
    if own is not None and own.workers > 1:
        raise SearchError(f"no learning curve: each fit of {member.family!r} takes {own.workers} workers")
    if own is not None and own.input == "table":
        raise SearchError(f"no learning curve: {member.family!r} reads the columns as they are")
    families = find_families(search, folder="")
    try:
        return learning_curve(
            read.data,
            member,
            families.find(member.family),
            metric=read.metric,
            seed=search.seed,
            threads=families.cpus(member.family, default=search.trial_cpus),
        )
    except Exception as err:  # the user's own model may raise anything
        raise SearchError(f"no learning curve: {describe_error(err)}") from err


def _scale(data: SearchData) -> float | None:
    return loss_scale(data.rows.y) if data.task == "regression" else None


def _load(workflow: Workflow, subject: Subject, folder: Path) -> Predictor:
    """Load the version's bundle, or the one that a search without a gate has left.

    Raises:
        RaywfError: if there is none, or its files are not what they were.
    """
    if subject.version is not None:
        fetched = open_registry(workflow).fetch(subject.version, folder)
        return load_bundle(fetched, digest=subject.version.digest, trust=workflow.trusts_own_code)
    sweep = subject.sweep
    place = Ledger(workflow.stores.root, sweep.id).bundles
    for name in ("final", "proof"):
        if (place / name / "digests.json").exists():
            predictor = load_bundle(place / name, trust=workflow.trusts_own_code)
            if predictor.bundle.members == sweep.members:
                return predictor
    raise SearchError(f"no importance: the bundle of sweep {sweep.id} is neither registered nor in the store")


def known_versions(workflow: Workflow) -> tuple[ModelVersion, ...]:
    """Return the registry's versions; a store that is not there yet is not made."""
    uri = tracking_uri(workflow)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return ()
    return open_registry(workflow).versions()


def _sweeps(workflow: Workflow, target: str | None) -> Iterator[Sweep]:
    """Yield the workflow's finished sweeps (or the one of that id), the newest first."""
    store = Store(workflow.stores.root)
    snapshots = {s.id for s in list_snapshots(store, workflow.name)}
    written = {i: store.modified_s(f"sweeps/{i}/sweep.json") for i in store.list("sweeps")}
    for name, _ in sorted(written.items(), key=lambda item: -(item[1] or 0)):
        sweep = _read_sweep(workflow, name) if written[name] and target in {None, name} else None
        if sweep is not None and sweep.snapshot_id in snapshots:
            yield sweep


def _read_sweep(workflow: Workflow, sweep_id: str) -> Sweep | None:
    try:
        text = Store(workflow.stores.root).read(f"sweeps/{sweep_id}/sweep.json")
        return decode(Sweep, json.loads(text))
    except (FileNotFoundError, DecodeError):
        return None


@contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Turn a refusal into a note, so that the other parts are still told."""
    try:
        yield
    except RaywfError as err:
        notes.append(str(err))
