"""Scores a snapshot or a table in the cluster, each row once, however often that is interrupted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import ray
import ray.data

from raywf.core.codec import decode, encode
from raywf.core.errors import SettingsError, SourceError, did_you_mean
from raywf.core.records import Snapshot
from raywf.core.settings import Workflow
from raywf.core.source import ModelSource
from raywf.core.store import Store, absolute
from raywf.loop.cluster import connect
from raywf.loop.pieces import Piece, Wanted, cut
from raywf.loop.scorer import Outturn, Scorer, Scoring, as_features, load_model
from raywf.loop.scores import Manifest, Run, ScoredPart, claim, commit
from raywf.registry.registry import CHAMPION, open_registry
from raywf.serving.cache import LoadedModel
from raywf.snapshots.catalog import list_snapshots, load_snapshot
from raywf.snapshots.sources import Table, open_table

Keep = Literal["keys", "all"]
_KEYS = ("__key", "__time")  # of a snapshot
_MOST_BLOCKS = 4_000
_MOST_ACTORS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to score, by which version (a number or an alias), and where the answers go.

    Without `snapshot` and `input` it is the newest snapshot. `keep` "keys" keeps of the input's columns those
    that tell its rows apart: the spine's keys and event time, all where the input has none of them.
    """

    output: str
    snapshot: str | None = None
    input: str | None = None
    version: str = CHAMPION
    keep: Keep = "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: parts done, of how many, rows in them, and parts that were there before."""

    parts: int
    of: int
    rows: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A finished run: its manifest, whether there was anything left to do, and how much was there before."""

    manifest: Manifest
    output: str
    was_finished: bool
    kept_parts: int
    seconds: float


def score(
    workflow: Workflow,
    asked: Asked,
    *,
    source: ModelSource | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Scored:
    """Score all rows into the folder, or what an interrupted run has left; a finished run is left alone.

    Connects to the workflow's cluster where there is something to do. `source` defaults to the registry.

    Raises:
        SettingsError: if the output is another run's, or cannot be written.
        SourceError: if the input cannot be read, lacks a column, has one of the wrong type, or changes.
        RegistryError: if there is no such version.
        BundleError: if the version's files are not as they were registered.
    """
    start = time.monotonic()
    given = _find_input(workflow, asked)
    scoring, run = _prepare(workflow, asked, given, source or open_registry(workflow))
    store = Store(scoring.output)
    done = claim(store, run)
    if done is not None:
        return Scored(
            manifest=done, output=scoring.output, was_finished=True, kept_parts=len(done.parts), seconds=0.0
        )
    connect(workflow)
    pieces = cut(given.table)
    parts: list[ScoredPart] = []
    progress = Progress(parts=0, of=len(pieces), rows=0, kept=0)
    for outturn in _carry_out(scoring, pieces):
        part = outturn.settled()
        parts.append(part)
        progress = replace(
            progress, parts=len(parts), rows=progress.rows + part.rows, kept=progress.kept + outturn.kept
        )
        tell(progress)
    _require_same(given, progress.rows)
    manifest = commit(store, run, tuple(parts))
    return Scored(
        manifest=manifest,
        output=scoring.output,
        was_finished=False,
        kept_parts=progress.kept,
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    """The files that are scored, as they are now, and the snapshot that they are, if it is one."""

    table: Table
    snapshot: Snapshot | None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"snapshot {self.snapshot.id}" if self.snapshot else f"input {self.table.source.path!r}"


def _find_input(workflow: Workflow, asked: Asked) -> _Input:
    if asked.input is not None:
        if asked.snapshot is not None:
            raise SettingsError("a snapshot or an input can be scored, not both at once")
        path = absolute(asked.input)
        _require_apart(path, asked.output)
        return _Input(table=open_table(path, name="input"), snapshot=None)
    store = Store(workflow.stores.root)
    if asked.snapshot is not None:
        snapshot = load_snapshot(store, workflow.name, asked.snapshot)
    else:
        known = list_snapshots(store, workflow.name)
        if not known:
            raise SourceError(f"workflow {workflow.name!r} has no snapshot yet; build one, or give an input")
        snapshot = known[-1]
    return _Input(table=open_table(snapshot.uri, name=f"snapshot {snapshot.id}"), snapshot=snapshot)


def _require_apart(path: str, output: str) -> None:
    if f"{absolute(output)}/".startswith(f"{path.rstrip('/')}/"):
        raise SettingsError(f"the output {output!r} lies in the input {path!r}, whose files it would be")


def _prepare(workflow: Workflow, asked: Asked, given: _Input, source: ModelSource) -> tuple[Scoring, Run]:
    """Check everything that can be known before any work starts."""
    version = source.version(asked.version) if asked.version.isdecimal() else source.resolve(asked.version)
    table, snapshot = given.table, given.snapshot
    scoring = Scoring(
        workflow=workflow.name,
        root=workflow.stores.root,
        trust=workflow.trusts_own_code,
        source=source,
        version=version,
        run_id="",
        input=table.source.path,
        wanted=Wanted(features=(), numbers=frozenset(), kept=()),
        typed=snapshot is not None,
        output=absolute(asked.output),
    )
    model = load_model(scoring)
    kept = _kept(workflow, given, asked.keep)
    made = _answers_of(model)
    for name in kept:
        if name in made:
            raise SourceError(f"{given.name} has a column {name!r}, as the answers have; rename it")
    _require_columns(model, given, kept)
    columns = model.predictor.bundle.columns
    wanted = Wanted(
        features=tuple(c.name for c in columns),
        numbers=frozenset(c.name for c in columns if c.kind == "number"),
        kept=kept,
    )
    run = Run(
        workflow=workflow.name,
        input=f"snapshot {snapshot.id}" if snapshot else table.source.path,
        source=snapshot.id if snapshot else table.source.version,
        version=version.version,
        digest=version.digest,
        columns=(*kept, *made),
    )
    return replace(scoring, wanted=wanted, run_id=run.id), run


def _kept(workflow: Workflow, given: _Input, keep: Keep) -> tuple[str, ...]:
    columns = given.table.columns
    spine = workflow.spine
    keys = _KEYS if given.snapshot else (*spine.keys, spine.event_time)
    found = tuple(name for name in dict.fromkeys(keys) if name in columns)
    return found if found and keep == "keys" else columns


def _answers_of(model: LoadedModel) -> tuple[str, ...]:
    bundle = model.predictor.bundle
    if bundle.task == "regression":
        return ("value", "model_version")
    return ("prediction", *(f"probability_{name}" for name in bundle.classes), "model_version")


def _require_columns(model: LoadedModel, given: _Input, kept: tuple[str, ...]) -> None:
    """Refuse an input that lacks a column, or has one of a type that the model does not take."""
    columns, table = model.predictor.bundle.columns, given.table
    who = f"version {model.version.version}"
    if given.snapshot is not None:
        kinds = {c.name: c.kind for c in given.snapshot.columns}
        for column in columns:
            if kinds.get(column.name) != column.kind:
                known = f"is of kind {kinds[column.name]}" if column.name in kinds else "is not in it"
                raise SourceError(f"{given.name} is not for {who}: {column.kind} {column.name!r} {known}")
    for file, schema in zip(table.files, table.schemas, strict=True):
        for name in (*(c.name for c in columns), *kept):
            if name not in schema.names:
                near = did_you_mean(name, schema.names)
                raise SourceError(f"{file} lacks column {name!r}, which {who} needs{near}")
        if table.format == "parquet" and given.snapshot is None:
            as_features(model, schema.empty_table(), file=file)


def _carry_out(scoring: Scoring, pieces: tuple[Piece, ...]) -> Iterator[Outturn]:
    """Yield what became of each piece, as it is known."""
    if not pieces:
        return
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    most = min(len(pieces), _MOST_ACTORS)
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=min(cpus, most))
    items = [{"piece": json.dumps(encode(piece))} for piece in pieces]
    worker: Any = Scorer
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
        worker,
        batch_size=1,
        batch_format="numpy",
        compute=pool,
        fn_constructor_args=(scoring,),
        num_cpus=1,
    )
    for row in dataset.iter_rows():
        yield decode(Outturn, json.loads(row["outturn"]))


def _require_same(given: _Input, rows: int) -> None:
    """Refuse to finish what was read while it changed."""
    table = given.table
    if given.snapshot is not None:
        if rows != given.snapshot.rows:
            raise SourceError(
                f"{given.name} has {rows} rows at {given.snapshot.uri}, not {given.snapshot.rows}"
            )
    elif open_table(table.source.path, name="input").source.version != table.source.version:
        raise SourceError(f"{given.name} changed while it was scored; score it anew into a new folder")
    if rows == 0:
        raise SourceError(f"{given.name} has no rows")
