"""Decides what each source column becomes: key, time, label or feature, and of which kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa
import ray

from raywf.core.errors import SettingsError, SourceError, did_you_mean
from raywf.core.records import Column, ColumnKind
from raywf.core.settings import Workflow
from raywf.snapshots.convert import TextScan, is_text, native_kind, scan_text, to_time
from raywf.snapshots.sources import TASK_CPUS, Table

NUMBER_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of one table: its column there, its name in the snapshot and its kind."""

    source: str
    name: str
    kind: ColumnKind = "number"
    flag: bool = False

    @property
    def column(self) -> Column:
        """The snapshot's column."""
        return Column(name=self.name, kind=self.kind)


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What is taken from a table; `times` maps reserved names to columns. For the spine only: `label`, and
    `extras`, which are a row's weight and group.
    """

    table: str
    keys: tuple[str, ...]
    times: dict[str, str]
    features: tuple[Feature, ...]
    label: Feature | None = None
    extras: tuple[Feature, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to read, each once."""
        label = [self.label.source] if self.label else []
        others = [feature.source for feature in (*self.features, *self.extras)]
        return tuple(dict.fromkeys([*self.keys, *self.times.values(), *label, *others]))


@dataclass(frozen=True, slots=True)
class Scan:
    """What a table's columns hold: rows and bytes of each block, and for each column the kinds and counts."""

    rows: tuple[int, ...]
    bytes: int
    kinds: dict[str, frozenset[str]]
    counts: dict[str, TextScan]


def plan_tables(workflow: Workflow, tables: dict[str, Table]) -> dict[str, TablePlan]:
    """Name every column that is needed, without looking at values; the spine's plan has the key ``spine``.

    Raises:
        SourceError: if a named column is absent.
        SettingsError: if two features come to the same name, or a timed view meets a spine without times.

    """
    views = workflow.features.views
    taken = {"spine": _spine_features(workflow, tables["spine"])}
    for name, view in views.items():
        tables[name].require(view.keys, role="key")
        times = [t for t in (view.event_time, view.known_time) if t]
        tables[name].require(times, role="time")
        tables[name].require(view.columns, role="column")
        default = [c for c in tables[name].columns if c not in {*view.keys, *times}]
        taken[name] = list(view.columns or default)
        tables["spine"].require(view.keys, role=f"key of view {name!r},")
        if view.event_time and not workflow.spine.event_time:
            raise SettingsError(
                f"view {name!r} has an event_time but the spine has none: name spine.event_time, "
                f"or leave event_time out of the view if its values never change"
            )
    features = _name_features(workflow, taken)
    plans = {"spine": _spine_plan(workflow, features["spine"])}
    for name, view in views.items():
        stamps = {"__event": view.event_time, "__known": view.known_time}
        given = {key: column for key, column in stamps.items() if column}
        plans[name] = TablePlan(name, view.keys, given, features[name])
    return plans


def decide_kinds(plan: TablePlan, scan: Scan, *, workflow: Workflow) -> tuple[TablePlan, tuple[str, ...]]:
    """Settle the kind of each feature and of the label by what the columns hold; return warnings too.

    Raises:
        SourceError: if a time column holds other things than instants, the label of a regression is not a
            number, or a feature is a list or a structure.

    """
    warnings: list[str] = []
    for column in plan.times.values():
        _require_times(plan, column, scan)
    features = [_decide(feature, scan, workflow=workflow, warnings=warnings) for feature in plan.features]
    label = plan.label
    if label is not None:
        label = _decide_label(label, scan, workflow)
        gaps = sum(scan.rows) - scan.counts[plan.times["__time"]].filled if "__time" in plan.times else 0
        if gaps:
            warnings.append(f"{gaps} rows of the spine have no event time and are left out")
    return replace(plan, features=tuple(features), label=label), tuple(warnings)


def scan_blocks(refs: Iterable[ray.ObjectRef], plan: TablePlan) -> Scan:
    """Look at every value once, a task a block, and sum what was seen.

    Raises:
        SourceError: if the table has no rows.

    """
    task = ray.remote(scan_block).options(num_cpus=TASK_CPUS)
    parts: list[Scan] = ray.get([task.remote(ref, plan) for ref in refs])
    if sum(part.rows[0] for part in parts) == 0:
        raise SourceError(f"{plan.table} table has no rows")
    return Scan(
        rows=tuple(part.rows[0] for part in parts),
        bytes=sum(part.bytes for part in parts),
        kinds={c: frozenset().union(*(p.kinds[c] for p in parts)) for c in plan.columns},
        counts={c: sum((p.counts[c] for p in parts), TextScan()) for c in plan.columns},
    )


def scan_block(block: pa.Table, plan: TablePlan) -> Scan:
    """Look at every value of one block."""
    kinds: dict[str, frozenset[str]] = {}
    counts: dict[str, TextScan] = {}
    for name in plan.columns:
        values = block.column(name) if name in block.column_names else None
        if values is None:
            kinds[name], counts[name] = frozenset(), TextScan()
        elif name in plan.times.values():
            filled = len(values) - values.null_count
            times = to_time(values)
            kinds[name] = frozenset({"time"})
            counts[name] = TextScan(filled=filled, times=len(times) - times.null_count)
        else:
            kinds[name], counts[name] = _scan_column(values)
    return Scan((block.num_rows,), block.nbytes, kinds, counts)


def _scan_column(values: pa.ChunkedArray) -> tuple[frozenset[str], TextScan]:
    if is_text(values.type):
        return frozenset({"text"}), scan_text(values)
    kind = native_kind(values.type)
    filled = len(values) - values.null_count
    if pa.types.is_null(values.type):
        return frozenset(), TextScan()
    if kind == "category":
        return frozenset({"flag"}), TextScan(filled=filled, flags=filled)
    if kind == "time":
        return frozenset({"time"}), TextScan(filled=filled, times=filled)
    numbers = filled if kind == "number" else 0
    return frozenset({kind or "nested"}), TextScan(filled=filled, numbers=numbers)


def _spine_features(workflow: Workflow, table: Table) -> list[str]:
    spine, wanted = workflow.spine, workflow.features.columns
    times = [t for t in (spine.event_time, spine.label_time) if t]
    table.require([spine.label], role="the label")
    table.require(spine.keys, role="key")
    table.require(times, role="time")
    table.require(wanted, role="feature")
    extras = [column for column, _, _ in _extras(workflow)]
    table.require(extras, role="weight or group")
    taken = {*spine.keys, spine.label, *times, *extras}
    if spine.label in wanted:
        raise SettingsError(f"features.columns names the label {spine.label!r}; take it out")
    return list(wanted or [c for c in table.columns if c not in taken])


def _spine_plan(workflow: Workflow, features: tuple[Feature, ...]) -> TablePlan:
    spine = workflow.spine
    times = {"__time": spine.event_time, "__label_time": spine.label_time}
    keys = [*spine.keys, *(key for view in workflow.features.views.values() for key in view.keys)]
    return TablePlan(
        table="spine",
        keys=tuple(dict.fromkeys(keys)),
        times={key: column for key, column in times.items() if column},
        features=features,
        label=Feature(spine.label, "__label", "number" if workflow.task == "regression" else "category"),
        extras=tuple(Feature(column, name, kind) for column, name, kind in _extras(workflow)),
    )


def _extras(workflow: Workflow) -> list[tuple[str, str, ColumnKind]]:
    spine = workflow.spine
    named: list[tuple[str | None, str, ColumnKind]] = [
        (spine.weight, "__weight", "number"),
        (spine.group, "__group", "category"),
    ]
    return [(column, name, kind) for column, name, kind in named if column is not None]


def _name_features(workflow: Workflow, taken: dict[str, list[str]]) -> dict[str, tuple[Feature, ...]]:
    exclude = set(workflow.features.exclude)
    shared = Counter(name for names in taken.values() for name in names)
    named: dict[str, list[Feature]] = {}
    for table, names in taken.items():
        finals = [n if table == "spine" or shared[n] == 1 else f"{table}_{n}" for n in names]
        named[table] = [Feature(n, final) for n, final in zip(names, finals, strict=True)]
    known = {text for features in named.values() for f in features for text in (f.source, f.name)}
    settled = {
        *workflow.spine.keys,
        workflow.spine.label,
        workflow.spine.event_time,
        workflow.spine.label_time,
        workflow.spine.weight,
        workflow.spine.group,
    }
    for setting, wanted in (("exclude", exclude), ("categorical", set(workflow.features.categorical))):
        for name in sorted(wanted - known - settled):
            raise SettingsError(f"features.{setting} names no column: {name!r}{did_you_mean(name, known)}")
    kept = {
        table: tuple(f for f in features if not exclude & {f.source, f.name})
        for table, features in named.items()
    }
    counts = Counter(f.name for features in kept.values() for f in features)
    for name, count in counts.items():
        if count > 1 or name.startswith("__"):
            raise SettingsError(
                f"feature name {name!r} is taken twice or reserved; rename or exclude a column"
            )
    if not counts:
        raise SettingsError("no features are left; look at features.columns, features.exclude and the views")
    return kept


def _require_times(plan: TablePlan, column: str, scan: Scan) -> None:
    counts = scan.counts[column]
    if counts.times < counts.filled or counts.filled == 0:
        raise SourceError(
            f"{plan.table} table: {counts.filled - counts.times} of {counts.filled} values of the time "
            f"column {column!r} are not instants; write them as 2013-01-31T05:00:00Z"
        )


def _decide_label(label: Feature, scan: Scan, workflow: Workflow) -> Feature:
    counts, kinds = scan.counts[label.source], scan.kinds[label.source]
    if counts.filled == 0:
        raise SourceError(f"the label {label.source!r} is missing in every row of the spine")
    if "nested" in kinds or (workflow.task == "regression" and counts.numbers < counts.filled):
        raise SourceError(
            f"{counts.filled - counts.numbers} of {counts.filled} values of the label {label.source!r} are "
            f"not numbers; mend them or set another task than {workflow.task}"
        )
    return replace(label, flag=counts.flags == counts.filled)


def _decide(feature: Feature, scan: Scan, *, workflow: Workflow, warnings: list[str]) -> Feature:
    kinds, counts = scan.kinds[feature.source], scan.counts[feature.source]
    if "nested" in kinds:
        raise SourceError(f"column {feature.source!r} holds lists or structures; put it in features.exclude")
    flag = counts.filled > 0 and counts.flags == counts.filled
    if {feature.source, feature.name} & set(workflow.features.categorical):
        return replace(feature, kind="category", flag=flag)
    if kinds <= {"number"} or kinds == {"time"}:
        return replace(feature, kind="time" if "time" in kinds else "number")
    if counts.filled == 0 or flag:
        return replace(feature, kind="category", flag=flag)
    if counts.times == counts.filled:
        return replace(feature, kind="time")
    if counts.numbers >= NUMBER_SHARE * counts.filled:
        if counts.numbers < counts.filled:
            warnings.append(
                f"column {feature.name!r} is text but read as a number: {counts.filled - counts.numbers} of "
                f"{counts.filled} values are no numbers and count as missing"
            )
        return replace(feature, kind="number")
    return replace(feature, kind="category")
