"""What was served as a history: the log's rows and what became of them, as a table to be played back."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raywf.core.codec import DecodeError
from raywf.core.errors import SettingsError
from raywf.core.records import ColumnProfile
from raywf.core.settings import FeatureSettings, Workflow
from raywf.core.store import Store
from raywf.monitor.drift import as_text
from raywf.monitor.reference import Reference
from raywf.outcomes.column_reader import ColumnReader
from raywf.outcomes.columns import LogColumns

ID, SERVED_AT, KNOWN_AT, LABEL = "raywf_id", "raywf_served_at", "raywf_known_at", "raywf_label"
_INSTANT = pa.timestamp("us", "UTC")
_TYPES = {"number": pa.float64(), "category": pa.string(), "time": _INSTANT}


def served_workflow(workflow: Workflow, reference: Reference) -> Workflow:
    """Write the outcome log's labelled rows as a table, and return the workflow of which it is the spine.

    Its features are the columns of `reference`, of any version's rows; of an id's predictions the earliest
    counts, of its outcomes the latest, known since nothing else was said. What the log has not, weights and
    groups of rows, has no say. The workflow has a name of its own, lest its snapshots count as the other's.

    Raises:
        SettingsError: if no row of the log has a label, or the metric needs groups.
        OSError: if the log cannot be read, or the store not be written.
    """
    store, path = Store(workflow.stores.root), f"served/{workflow.name}.parquet"
    names = {profile.name for profile in reference.profile}
    label = LABEL if workflow.spine.label in names else workflow.spine.label
    spine = replace(
        workflow.spine,
        path=store.uri(path),
        label=label,
        keys=(ID,),
        event_time=SERVED_AT,
        label_time=KNOWN_AT,
        weight=None,
        group=None,
    )
    features = FeatureSettings(categorical=tuple(p.name for p in reference.profile if p.kind == "category"))
    try:
        served = replace(workflow, name=f"{workflow.name}-served", spine=spine, features=features)
    except DecodeError as err:
        raise SettingsError(f"{err.message}; the outcome log has none") from err
    labels = _labels(workflow, reference)
    rows = _rows(workflow, reference.profile, labels)
    if not rows.num_rows:
        raise SettingsError("the log holds no prediction with a label yet: there is no history to play back")
    store.write(path, _parquet(rows, labels, label))
    return served


def _blocks(workflow: Workflow) -> Iterator[LogColumns]:
    reader = ColumnReader(workflow.stores.root, workflow.name)
    for found, _ in reader.columns(max_bytes=sys.maxsize):
        yield found


def _labels(workflow: Workflow, reference: Reference) -> pd.DataFrame:
    """Return by id the label that counts, and since when it was known in microseconds since 1970."""
    parts = [pd.DataFrame({ID: np.empty(0, np.uint64), KNOWN_AT: np.empty(0, np.int64), LABEL: []})]
    for block in _blocks(workflow):
        told = block.labels
        texts = [as_text(label) for label in told.labels] if reference.classes else told.labels
        parts.append(pd.DataFrame({ID: told.keys, KNOWN_AT: told.times, LABEL: texts}))
    every = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    if reference.classes:
        every = every[every[LABEL].isin(reference.classes)]
    else:
        every = every.assign(**{LABEL: pd.to_numeric(every[LABEL], errors="coerce")}).dropna()
    every = every.sort_values([ID, KNOWN_AT], kind="stable")
    is_news = (every[ID] != every[ID].shift()) | (every[LABEL] != every[LABEL].shift())
    return every[is_news].drop_duplicates(ID, keep="last").set_index(ID)


def _rows(workflow: Workflow, profile: Sequence[ColumnProfile], labels: pd.DataFrame) -> pa.Table:
    """Return each labelled id's earliest prediction, in the order of time."""
    names, wanted = [one.name for one in profile], labels.index.to_numpy(np.uint64)
    schema = pa.schema(
        [(ID, pa.uint64()), (SERVED_AT, pa.int64()), *((p.name, _TYPES[p.kind]) for p in profile)]
    )
    parts = []
    for answers in (one for block in _blocks(workflow) for one in block.answers):
        chosen = np.flatnonzero(np.isin(answers.keys, wanted))
        values = zip(profile, answers.features.columns(names), strict=True)
        columns = [_feature([column[i] for i in chosen], one) for one, column in values]
        parts.append(pa.table([answers.keys[chosen], answers.times[chosen], *columns], schema=schema))
    rows = pa.concat_tables(parts) if parts else schema.empty_table()
    order = np.argsort(rows.column(SERVED_AT).to_numpy(), kind="stable")
    _, first = np.unique(rows.column(ID).to_numpy()[order], return_index=True)
    return rows.take(pa.array(order[np.sort(first)]))


def _parquet(rows: pa.Table, labels: pd.DataFrame, label: str) -> bytes:
    known = labels.loc[rows.column(ID).to_numpy()]
    columns: dict[str, Any] = {
        ID: pa.array([f"{key:016x}" for key in rows.column(ID).to_pylist()]),
        SERVED_AT: rows.column(SERVED_AT).cast(_INSTANT),
        KNOWN_AT: pa.array(known[KNOWN_AT].to_numpy(np.int64)).cast(_INSTANT),
        label: pa.array(known[LABEL].tolist()),
    }
    columns |= {name: rows.column(name) for name in rows.column_names[2:]}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def _feature(values: list[Any], profile: ColumnProfile) -> pa.Array:
    """Return logged values as a snapshot's table would have them."""
    if profile.kind == "number":
        numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").astype("float64")
        return pa.array(numbers, pa.float64(), from_pandas=True)
    if profile.kind == "time":
        texts = pd.Series(values, dtype=object)
        read = pd.to_datetime(texts, utc=True, errors="coerce", format="ISO8601").dt.as_unit("us")
        return pa.array(read, _INSTANT, from_pandas=True)
    return pa.array([None if value is None else as_text(value) for value in values], pa.string())
