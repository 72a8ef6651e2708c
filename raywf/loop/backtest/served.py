"""What was served as a history: the log's rows and what became of them, as a table to be played back."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from raywf.core.errors import SettingsError
from raywf.core.records import ColumnProfile
from raywf.core.settings import FeatureSettings, Workflow
from raywf.core.store import Store
from raywf.monitor.drift import as_text
from raywf.monitor.reference import Reference
from raywf.outcomes.column_reader import ColumnReader

ID, SERVED_AT, KNOWN_AT = "raywf_id", "raywf_served_at", "raywf_known_at"


def served_workflow(workflow: Workflow, reference: Reference) -> Workflow:
    """Write the outcome log's labelled rows as a table, and return the workflow of which it is the spine.

    Its features are the columns of `reference`, of any version's rows; of an id's predictions the earliest
    counts, of its outcomes the latest. The rows' weights and groups are not in the log, and have no say.

    Raises:
        SettingsError: if no row of the log has a label.
        OSError: if the log cannot be read, or the store not be written.
    """
    rows, labels = _log(workflow, [profile.name for profile in reference.profile])
    rows = rows.sort_values(SERVED_AT, kind="stable").drop_duplicates(ID)
    labels = labels.sort_values(KNOWN_AT, kind="stable").drop_duplicates(ID, keep="last")
    both = rows.merge(labels, on=ID)
    if both.empty:
        raise SettingsError("the log holds no prediction with a label yet: there is no history to play back")
    store, path = Store(workflow.stores.root), f"served/{workflow.name}.parquet"
    store.write(path, _parquet(both, reference, workflow.spine.label))
    categories = tuple(p.name for p in reference.profile if p.kind == "category")
    spine = replace(
        workflow.spine,
        path=store.uri(path),
        keys=(ID,),
        event_time=SERVED_AT,
        label_time=KNOWN_AT,
        weight=None,
        group=None,
    )
    return replace(workflow, spine=spine, features=FeatureSettings(categorical=categories))


def _log(workflow: Workflow, names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all predictions with their features, and all outcomes; times in microseconds since 1970."""
    rows = [pd.DataFrame(columns=[ID, SERVED_AT, *names])]
    labels = [pd.DataFrame(columns=[ID, KNOWN_AT, workflow.spine.label])]
    reader = ColumnReader(workflow.stores.root, workflow.name)
    for found, _ in reader.columns(max_bytes=sys.maxsize):
        for one in found.answers:
            columns = dict(zip(names, one.features.columns(names), strict=True))
            rows.append(pd.DataFrame({ID: one.keys, SERVED_AT: one.times, **columns}, dtype=object))
        told = found.labels
        facts = {ID: told.keys, KNOWN_AT: told.times, workflow.spine.label: told.labels}
        labels.append(pd.DataFrame(facts, dtype=object))
    return pd.concat(rows, ignore_index=True), pd.concat(labels, ignore_index=True)


def _parquet(both: pd.DataFrame, reference: Reference, label: str) -> bytes:
    columns: dict[str, Any] = {
        ID: pa.array([f"{key:016x}" for key in both[ID]]),
        SERVED_AT: _instants(both[SERVED_AT]),
        KNOWN_AT: _instants(both[KNOWN_AT]),
        label: pa.array(both[label].map(as_text) if reference.classes else _numbers(both[label])),
    }
    columns |= {profile.name: _feature(both[profile.name], profile) for profile in reference.profile}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def _feature(values: pd.Series[Any], profile: ColumnProfile) -> pa.Array:
    """Return logged values as a snapshot's table would have them."""
    if profile.kind == "number":
        return pa.array(_numbers(values), from_pandas=True)
    if profile.kind == "time":
        read = pd.to_datetime(values, utc=True, errors="coerce", format="ISO8601")
        return pa.array(read, pa.timestamp("us", "UTC"), from_pandas=True)
    return pa.array([None if value is None else as_text(value) for value in values], pa.string())


def _numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    return pd.to_numeric(values, errors="coerce").astype("float64")


def _instants(micros: pd.Series[Any]) -> pa.Array:
    return pa.array(micros.astype("int64")).cast(pa.timestamp("us", "UTC"))
