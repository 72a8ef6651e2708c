"""Requests of many rows by column, and their answers in the same forms, with no object a row."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, ipc

from raywf.core.clock import Clock, format_time
from raywf.core.records import Bundle
from raywf.models.encoding import Encoder
from raywf.serving.bodies import Columns
from raywf.serving.columns import ID, TIME, read_column, read_ids, read_times
from raywf.serving.requests import RequestError, Row

ARROW, CSV, JSON = "application/vnd.apache.arrow.stream", "text/csv", "application/json"


@dataclass(frozen=True, slots=True)
class TableRequest:
    """Rows by column: `features` has the model's columns in its order, as a snapshot has them."""

    features: pa.Table
    ids: list[str]
    times: list[datetime]

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self) -> dict[str, list[Any] | NDArray[Any]]:
        """Return the features by column for the log: numbers, texts, and instants as text or datetime64."""
        return {name: _logged(self.features.column(name)) for name in self.features.column_names}

    def sample(self, most: int) -> TableRequest:
        """Return so many of the rows at most, evenly spread."""
        if len(self) <= most:
            return self
        places = np.linspace(0, len(self) - 1, most).astype(np.int64)
        ids, times = [self.ids[i] for i in places], [self.times[i] for i in places]
        return TableRequest(self.features.take(pa.array(places)), ids, times)

    def rows(self) -> list[Row]:
        """Return the rows one by one, as a request of rows has them."""
        names = self.features.column_names
        found = [_values(self.features.column(name)) for name in names]
        return [
            Row(one, when, dict(zip(names, values, strict=True)))
            for one, when, *values in zip(self.ids, self.times, *found, strict=True)
        ]


class Scored(NamedTuple):
    """Rows that one model answered: their places in the request and scores, shape ``(n_rows, k)``."""

    bundle: Bundle
    version: str
    scores: NDArray[np.float64]
    places: slice | Sequence[int] = slice(None)


def to_request(
    given: Columns, encoder: Encoder, *, max_rows: int, max_bytes: int, clock: Clock
) -> TableRequest:
    """Check columns, which have the model's names, and return them as it takes them.

    Raises:
        RequestError: 413 for too many rows or bytes, 422 for a column with a wrong value.
    """
    rows = len(next(iter(given.values())))
    if rows > max_rows:
        raise RequestError(413, f"the body holds {rows} rows, at most {max_rows} are allowed")
    if rows == 0:
        raise RequestError(422, "the body must hold at least one row")
    found = {}
    for column in encoder.columns:
        values = read_column(given[column.name], column.kind, column.name, max_bytes=max_bytes)
        found[column.name] = encoder.spelt(column.name, values) if column.kind == "category" else values
    ids = read_ids(given.get(ID), rows, max_bytes=max_bytes)
    times = read_times(given.get(TIME), rows, clock.now(), max_bytes=max_bytes)
    return TableRequest(pa.table(found), ids, times)


def write_answers(kind: str, ids: Sequence[str], parts: Sequence[Scored], version: str) -> bytes:
    """Return the answers of all parts, in the request's order, in the form of `kind`, a content type.

    `version` is named as the model's; of rows that several versions answered each has its own beside it. A
    class that a row's model does not know has the probability 0.
    """
    values, shares = _merged(parts, len(ids))
    own: dict[str, Any] = {}
    if len(parts) > 1:
        versions = np.empty(len(ids), dtype=object)
        for part in parts:
            versions[part.places] = part.version
        own["model_version"] = versions.tolist()
    if kind == JSON:
        columns: dict[str, Any] = {"id": ids, **values, **own}
        if shares:
            columns["probabilities"] = shares
        data = {"model_version": version, "columns": columns}
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    table = pa.table({"id": pa.array(ids, pa.string()), **values, **_named(shares), **own})
    sink = io.BytesIO()
    if kind == CSV:
        csv.write_csv(table, sink)
    else:
        table = table.replace_schema_metadata({"model_version": version})
        with ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return sink.getvalue()


def answer_columns(bundle: Bundle, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Return the answers to rows by column, of scores with shape ``(n_rows, k)``.

    These are ``value``, or ``prediction`` and ``probability_<class>`` of each class, as in CSV and Arrow.
    """
    values, shares = _merged([Scored(bundle, "", scores)], len(scores))
    return {**values, **_named(shares)}


def _named(shares: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {f"probability_{name}": share for name, share in shares.items()}


def _merged(parts: Sequence[Scored], rows: int) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """Return the column of predictions or values by its name, and each class' probabilities."""
    if parts[0].bundle.task == "regression":
        values = np.empty(rows)
        for part in parts:
            values[part.places] = part.scores[:, 0]
        return {"value": values}, {}
    names = dict.fromkeys(name for part in parts for name in part.bundle.classes)
    shares = {name: np.zeros(rows) for name in names}
    predicted = np.empty(rows, dtype=object)
    for part in parts:
        best, given = _decide(part)
        predicted[part.places] = np.array(part.bundle.classes, dtype=object)[best]
        for i, name in enumerate(part.bundle.classes):
            shares[name][part.places] = given[:, i]
    return {"prediction": predicted.tolist()}, shares


def _decide(part: Scored) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each row's class by its place among the model's, and its probabilities."""
    scores = part.scores
    if part.bundle.task == "binary":
        shares = np.column_stack([1 - scores[:, 0], scores[:, 0]])
        return (scores[:, 0] >= part.bundle.threshold).astype(np.int64), shares
    return scores.argmax(axis=1), scores


def _logged(values: pa.ChunkedArray) -> list[Any] | NDArray[Any]:
    if pa.types.is_floating(values.type):
        return np.ascontiguousarray(values.to_numpy())  # what is missing is NaN, and null in JSON
    if not pa.types.is_timestamp(values.type) or values.null_count:
        return _values(values)
    return np.ascontiguousarray(values.cast(pa.int64()).to_numpy()).view("datetime64[us]")


def _values(values: pa.ChunkedArray) -> list[Any]:
    """Return values as a row has them; instants as `format_time` writes them."""
    found: list[Any] = values.to_pylist()
    if not pa.types.is_timestamp(values.type):
        return found
    return [None if when is None else format_time(when) for when in found]
