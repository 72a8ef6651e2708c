"""Compares two tables column by column: sketches of slabs, made here or as tasks of a cluster, and merged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ray

from raywf.core.drift import ColumnDrift, TableDrift
from raywf.core.errors import SettingsError, SourceError
from raywf.core.records import Column
from raywf.core.settings import Workflow
from raywf.core.sketch import Merger, NumberSketch, Sketch
from raywf.core.store import Store
from raywf.loop.cluster import join_cluster
from raywf.loop.slabs import Slab, cut_slabs, find_columns, sketch_slab
from raywf.monitor.compare import compare_sketches, control
from raywf.snapshots.catalog import load_snapshot
from raywf.snapshots.sketch import Bounds
from raywf.snapshots.sources import Table, open_table

_AHEAD = 4  # tasks a CPU that wait or run


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two tables: its files and columns; `left_out` are lists, structures and bytes."""

    name: str
    table: Table
    columns: tuple[Column, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftOptions:
    """What counts as drifted, and where the work is done: in this process on `cpus`, or at `address`."""

    threshold: float = 0.1
    rate: float = 0.05
    address: str | None = None
    cpus: int | None = None


def find_side(text: str, workflow: Callable[[], Workflow]) -> Side:
    """Return the table of a path, URI or glob; where nothing is there, the workflow's snapshot of that id.

    Raises:
        SourceError: if there is neither, or the files cannot be read.
    """
    if any(c in text for c in "/*?[.") or Path(text).exists():  # an id has none of these
        table = open_table(text, name="drift")
        columns, left_out = find_columns(table)
        return Side(name=text, table=table, columns=columns, left_out=left_out)
    try:
        settings = workflow()
    except SettingsError as err:
        raise SourceError(
            f"nothing at {text!r}: give a CSV or Parquet file, a folder, a glob, or the id of a snapshot "
            f"together with its workflow ({err})"
        ) from err
    snapshot = load_snapshot(Store(settings.stores.root), settings.name, text)
    name = f"snapshot {snapshot.id}"
    return Side(name=name, table=open_table(snapshot.uri, name=name), columns=snapshot.columns)


def compare_tables(reference: Side, current: Side, options: DriftOptions | None = None) -> TableDrift:
    """Compare the columns that both tables have, each read as the reference holds it.

    Raises:
        SourceError: if no column is in both, a table has no rows, or a file cannot be read.
        SettingsError: if the cluster cannot be reached.
    """
    asked = options or DriftOptions()
    there = {*current.table.columns} - {*current.left_out}
    shared = tuple(c for c in reference.columns if c.name in there)
    if not shared:
        raise SourceError(f"{reference.name} and {current.name} have no column in common")
    if asked.address is not None and not ray.is_initialized():
        join_cluster(asked.address)
    before = sketch_side(reference, shared, {}, asked)
    bounds = {s.name: (s.low, s.high) for s in before if isinstance(s, NumberSketch) and s.filled}
    after = sketch_side(current, shared, bounds, asked)
    found = control(compare_sketches(a, b) for a, b in zip(before, after, strict=True))
    return _describe(reference, current, found, asked)


def sketch_side(
    side: Side, columns: tuple[Column, ...], bounds: Bounds, options: DriftOptions
) -> tuple[Sketch, ...]:
    """Sketch these columns of a whole table, in their order.

    Raises:
        SourceError: if it has no rows, or a file cannot be read.
    """
    slabs = cut_slabs(side.table, columns)
    mergers = {c.name: Merger() for c in columns}
    path = side.table.source.path
    if options.address is not None:
        made = _in_cluster(path, slabs, bounds)
    else:
        made = _in_process(path, slabs, bounds, options.cpus)
    for sketches in made:
        for sketch in sketches:
            mergers[sketch.name].add(sketch)
    whole = tuple(mergers[c.name].merged() for c in columns)
    if whole[0].rows == 0:
        raise SourceError(f"{side.name} has no rows")
    return whole


def _in_process(
    path: str, slabs: tuple[Slab, ...], bounds: Bounds, cpus: int | None
) -> Iterator[tuple[Sketch, ...]]:
    """Yield slabs' sketches in order, made by threads: what takes long, reading and sorting, runs beside."""
    with ThreadPoolExecutor(cpus or len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(lambda slab: sketch_slab(path, slab, _of(bounds, slab)), slabs)


def _in_cluster(path: str, slabs: tuple[Slab, ...], bounds: Bounds) -> Iterator[tuple[Sketch, ...]]:
    """Yield slabs' sketches in order, made by tasks, of which some wait while others run."""
    task: Any = ray.remote(sketch_slab).options(num_cpus=1, scheduling_strategy="SPREAD")
    waiting = iter(slabs)
    most = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running = [task.remote(path, slab, _of(bounds, slab)) for slab in islice(waiting, most)]
    while running:
        try:
            yield ray.get(running.pop(0))
        except ray.exceptions.RayTaskError as err:
            raise (err.cause if isinstance(err.cause, SourceError) else err) from None
        running += [task.remote(path, slab, _of(bounds, slab)) for slab in islice(waiting, 1)]


def _of(bounds: Bounds, slab: Slab) -> Bounds:
    return {c.name: bounds[c.name] for c in slab.columns if c.name in bounds}


def _describe(
    reference: Side, current: Side, found: tuple[ColumnDrift, ...], options: DriftOptions
) -> TableDrift:
    ours, theirs = {c.name for c in reference.columns}, {c.name for c in current.columns}
    left_out = {*reference.left_out, *current.left_out}
    return TableDrift(
        reference=reference.name,
        current=current.name,
        reference_rows=found[0].reference_rows,
        rows=found[0].rows,
        threshold=options.threshold,
        rate=options.rate,
        columns=found,
        drifted=tuple(c.column for c in found if c.effect >= options.threshold and c.q < options.rate),
        gone=tuple(sorted(ours - theirs - left_out)),
        new=tuple(sorted(theirs - ours - left_out)),
        left_out=tuple(sorted(left_out)),
    )
