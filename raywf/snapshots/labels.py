"""Which labels are known at an instant, which classes they form, and their indices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raywf.core.errors import ValidationError, did_you_mean
from raywf.core.settings import Workflow
from raywf.snapshots.convert import time_us
from raywf.snapshots.prepare import FAR_PAST

_FAR_FUTURE = 2**62
_MAX_CLASSES = 200


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Of the rows with a known label: how many, by class, the least and greatest value, and how many labels
    are said to be known before their event.
    """

    rows: int
    classes: Counter[str]
    low: float
    high: float
    early: int


def known_rows(table: pa.Table, as_of_us: int | None) -> pa.Table:
    """Return the rows whose label was known at the instant (microseconds; None: at any time)."""
    return table.filter(pa.array(_is_known(table, as_of_us)))


def pending_rows(table: pa.Table, as_of_us: int | None) -> pa.Table:
    """Return the rows whose label was not known yet."""
    return table.filter(pa.array(~_is_known(table, as_of_us)))


def count_labels(table: pa.Table) -> LabelCounts:
    """Count the labels of rows that have one."""
    labels, early = table.column("__label"), 0
    if "__label_time" in table.column_names:
        late = time_us(table.column("__label_time"), missing=_FAR_FUTURE)
        early = int((late < time_us(table.column("__time"), missing=FAR_PAST)).sum())
    if pa.types.is_floating(labels.type):
        bounds = pc.min_max(labels)
        low, high = (bounds["min"].as_py(), bounds["max"].as_py()) if len(labels) else (np.inf, -np.inf)
        return LabelCounts(table.num_rows, Counter(), low, high, early)
    counted = {item["values"]: item["counts"] for item in labels.value_counts().to_pylist()}
    return LabelCounts(table.num_rows, Counter(counted), np.nan, np.nan, early)


def add_counts(parts: list[LabelCounts]) -> LabelCounts:
    """Sum the counts of a table's parts."""
    return LabelCounts(
        rows=sum(part.rows for part in parts),
        classes=sum((part.classes for part in parts), Counter()),
        low=min((part.low for part in parts), default=np.nan),
        high=max((part.high for part in parts), default=np.nan),
        early=sum(part.early for part in parts),
    )


def find_classes(counts: LabelCounts, workflow: Workflow) -> tuple[str, ...]:
    """Return the classes as sorted text, the positive one last where it is named; none for a regression.

    Raises:
        ValidationError: if a binary label has not two classes, the positive class does not occur, or a
            multiclass label has more than 200 classes.

    """
    if workflow.task == "regression":
        return ()
    label, classes = workflow.spine.label, sorted(counts.classes)
    if workflow.task == "binary" and len(classes) != 2:
        some = ", ".join(map(repr, classes[:5]))
        raise ValidationError(
            f"label {label!r} has {len(classes)} classes ({some}); a binary task needs exactly two"
        )
    if len(classes) < 2:
        raise ValidationError(
            f"label {label!r} has one class only, {classes[0]!r}; there is nothing to learn"
        )
    if len(classes) > _MAX_CLASSES:
        raise ValidationError(
            f"label {label!r} has {len(classes)} classes, more than {_MAX_CLASSES}; is the task a regression?"
        )
    positive = workflow.spine.positive
    if positive is not None:
        if positive not in classes:
            near = did_you_mean(positive, classes)
            raise ValidationError(f"spine.positive {positive!r} is no class of the label {label!r}{near}")
        classes.sort(key=lambda name: name == positive)
    return tuple(classes)


def check_values(classes: tuple[str, ...], workflow: Workflow) -> tuple[str, ...]:
    """Return a warning for each class that `monitor.values` name and the label has not (any more, or yet).

    Raises:
        ValidationError: if it is one of two, which are always there.
    """
    values = workflow.monitor.values
    named = dict.fromkeys((*values, *(was for row in values.values() for was in row)))
    found = [
        f"monitor.values: {name!r} is no class of the label {workflow.spine.label!r}"
        f"{did_you_mean(name, classes)}"
        for name in named
        if classes and name not in classes
    ]
    if found and workflow.task == "binary":
        quoted = (
            " (in YAML yes, no, on and off are flags: quote them)" if {"true", "false"} & set(named) else ""
        )
        raise ValidationError(found[0] + quoted)
    return tuple(found)


def encode_labels(table: pa.Table, classes: tuple[str, ...]) -> pa.Table:
    """Replace class text by its index as float64; a regression's values stay."""
    if not classes:
        return table
    index = pc.index_in(table.column("__label"), pa.array(classes, pa.string()))
    place = table.column_names.index("__label")
    return table.set_column(place, "__label", pc.cast(index, pa.float64()))


def _is_known(table: pa.Table, as_of_us: int | None) -> np.ndarray:
    known = np.asarray(pc.is_valid(table.column("__label")).to_numpy(), dtype=bool)
    if as_of_us is None or "__label_time" not in table.column_names:
        return known
    return known & (time_us(table.column("__label_time"), missing=_FAR_FUTURE) <= as_of_us)
