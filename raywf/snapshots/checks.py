"""What is looked at before a snapshot is written: refuse what cannot be learned from, warn of what is odd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raywf.core.category import MAX_CATEGORIES
from raywf.core.errors import ValidationError
from raywf.core.records import Column
from raywf.core.settings import Workflow
from raywf.snapshots.labels import LabelCounts
from raywf.snapshots.leaks import find_late_columns, find_leaks
from raywf.snapshots.prepare import KEY

_DISTINCT = 0.95
_DATES = r"^(\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./]\d{1,2}[./]\d{1,2})([T ].*)?$"


@dataclass(frozen=True, slots=True)
class Content:
    """What is checked: a sample of the labelled rows (all of them where they are few), of those still
    pending, every row's key, and exact counts.
    """

    sample: pa.Table
    pending: pa.Table
    keys: NDArray[np.int64]
    labels: LabelCounts
    classes: tuple[str, ...]
    columns: tuple[Column, ...]


def check_rows(rows: int, workflow: Workflow) -> None:
    """Refuse a table of too few labelled rows.

    Raises:
        ValidationError: if there are fewer than `validate.min_rows`.

    """
    if rows < workflow.validate.min_rows:
        raise ValidationError(
            f"only {rows} rows have a known label, fewer than validate.min_rows = "
            f"{workflow.validate.min_rows}; give more rows, a later as_of or a lower bound"
        )


def check_content(content: Content, workflow: Workflow) -> tuple[str, ...]:
    """Run all checks and return the warnings.

    Raises:
        ValidationError: naming the first check that failed, the figure and what to do.

    """
    _check_labels(content, workflow)
    _check_unique(content, workflow)
    _check_weights(content, workflow)
    warnings = [*_check_order(content, workflow), *_check_columns(content, workflow)]
    return (*warnings, *_check_leaks(content, workflow))


def _check_labels(content: Content, workflow: Workflow) -> None:
    label, counts = workflow.spine.label, content.labels
    if workflow.task == "regression":
        if counts.low == counts.high:
            raise ValidationError(
                f"label {label!r} is {counts.low:g} in every row; there is nothing to learn"
            )
        return
    least = workflow.validate.min_label_share
    for name in content.classes:
        share = counts.classes[name] / counts.rows
        if share < least:
            raise ValidationError(
                f"class {name!r} of label {label!r} has {counts.classes[name]} of {counts.rows} rows "
                f"({share:.3%}), below validate.min_label_share = {least:g}; merge or leave out rare classes"
            )


def _check_unique(content: Content, workflow: Workflow) -> None:
    if not workflow.spine.keys:
        return
    ordered = np.sort(content.keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated) == 0:
        return
    mask = pc.is_in(content.sample.column("__key"), pa.array(np.unique(repeated)))
    example = ""
    for row in content.sample.filter(mask).slice(0, 1).to_pylist():
        parts = [f"{key} = {row[KEY + key]!r}" for key in workflow.spine.keys]
        parts += [f"{workflow.spine.event_time} = {row['__time'].isoformat()}"] if "__time" in row else []
        example = f", such as {', '.join(parts)}"
    raise ValidationError(
        f"{len(repeated)} rows of the spine repeat their keys and event time{example}; remove the duplicates "
        f"or name more columns in spine.keys"
    )


def _check_weights(content: Content, workflow: Workflow) -> None:
    if workflow.spine.weight is None:
        return
    weights = content.sample.column("__weight").to_numpy()
    bad = int((~(np.isfinite(weights) & (weights >= 0))).sum())
    if bad or not weights.any():
        raise ValidationError(
            f"the weight {workflow.spine.weight!r} is missing, below 0 or not a number in {bad} of "
            f"{len(weights)} rows; each row needs one of at least 0, and not all may be 0"
        )


def _check_order(content: Content, workflow: Workflow) -> list[str]:
    early, rows = content.labels.early, content.labels.rows
    if early == 0:
        return []
    text = (
        f"{early} of {rows} rows have {workflow.spine.label_time!r} before {workflow.spine.event_time!r}: "
        f"a label cannot be known before its event"
    )
    if early > 0.01 * rows:
        raise ValidationError(f"{text}; are the two columns exchanged?")
    return [text]


def _looks_like_dates(values: pa.ChunkedArray) -> bool:
    """Whether nearly all values have the day, the month and the year in some order, which is not told."""
    alike = pc.mean(pc.match_substring_regex(values, _DATES)).as_py()
    return alike is not None and alike >= _DISTINCT


def _check_columns(content: Content, workflow: Workflow) -> list[str]:
    warnings, rows = [], content.sample.num_rows
    for column in content.columns:
        values = content.sample.column(column.name)
        missing = values.null_count / rows
        if missing == 1:
            warnings.append(f"column {column.name!r} is missing in every row")
            continue
        if missing > workflow.validate.max_missing:
            warnings.append(f"column {column.name!r} is missing in {missing:.1%} of the rows")
        distinct = pc.count_distinct(values).as_py()
        if distinct == 1 and missing == 0:
            warnings.append(f"column {column.name!r} has the same value in every row")
        if column.kind == "category" and _looks_like_dates(values):
            warnings.append(
                f"column {column.name!r} looks like dates that are not ISO 8601 "
                f"({values.drop_null()[0].as_py()!r}), which are read as categories: write 2020-12-31"
            )
        elif column.kind == "category" and distinct >= _DISTINCT * (rows - values.null_count) >= 50:
            warnings.append(
                f"column {column.name!r} looks like an identifier ({distinct} values); exclude it"
            )
        elif column.kind == "category" and distinct > MAX_CATEGORIES:
            others = 1 - _share_of_commonest(values)
            warnings.append(
                f"column {column.name!r} has {distinct:,} values; models read the commonest {MAX_CATEGORIES} "
                f"and the others, in {others:.1%} of the rows that have one, as missing: group them"
            )
    return warnings


def _share_of_commonest(values: pa.ChunkedArray) -> float:
    counts = np.sort(pc.value_counts(values.drop_null()).field("counts").to_numpy())
    return float(counts[-MAX_CATEGORIES:].sum() / counts.sum())


def _check_leaks(content: Content, workflow: Workflow) -> list[str]:
    settings = workflow.validate
    leaks = [
        *find_leaks(content.sample, content.columns, classes=len(content.classes), bound=settings.leak_auc),
        *find_late_columns(content.sample, content.pending, content.columns),
    ]
    texts = [f"column {leak.column!r} seems to leak the label: {leak.how}" for leak in leaks]
    if texts and settings.on_leak == "refuse":
        names = ", ".join(dict.fromkeys(leak.column for leak in leaks))
        raise ValidationError(
            f"{'; '.join(texts)}. If it is not known at prediction time set features.exclude: [{names}]; "
            f"if it is, set validate.on_leak: warn"
        )
    return texts
