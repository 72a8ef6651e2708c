"""Requests of many rows as columns: JSON columns, CSV or Arrow in, the same out, with no object a row."""

from __future__ import annotations

import csv as text_csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, ipc

from raywf.core.category import category_text
from raywf.core.clock import Clock, format_time, parse_time
from raywf.core.columns import TIME as TIME_TYPE
from raywf.core.errors import did_you_mean
from raywf.core.records import Bundle, Column
from raywf.models.encoding import Encoder
from raywf.serving.requests import EARLIEST, LATEST, MAX_ID, RequestError, Row
from raywf.serving.schema import MAX_NUMBER, brief

ARROW, CSV, JSON = "application/vnd.apache.arrow.stream", "text/csv", "application/json"
ID, TIME = "__id", "__time"  # columns of a table beside the features; both may be missing
_MISSING = ("", "NA", "NaN", "nan", "null", "NULL", "None")


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

    def rows(self) -> list[Row]:
        """Return the rows one by one, as a request of rows has them."""
        found = []
        for name in self.features.column_names:
            values = self.features.column(name)
            found.append(_texts(values) if pa.types.is_timestamp(values.type) else values.to_pylist())
        names = self.features.column_names
        return [
            Row(one, when, dict(zip(names, values, strict=True)))
            for one, when, *values in zip(self.ids, self.times, *found, strict=True)
        ]


def read_arrow(body: bytes) -> pa.Table:
    """Read an Arrow IPC stream.

    Raises:
        RequestError: 400, if it is none.
    """
    try:
        with ipc.open_stream(pa.py_buffer(body)) as stream:
            table = stream.read_all()
            table.validate(full=True)  # offsets come from the caller
            return table
    except (pa.ArrowException, OSError, ValueError) as err:
        raise RequestError(400, f"the body is not an Arrow IPC stream: {_brief(err)}") from err


def read_csv(body: bytes, columns: Sequence[Column]) -> pa.Table:
    """Read a CSV text with a header; numbers as such, all else as text, and what is missing is empty or NA.

    Raises:
        RequestError: 400, if it is none, 422 if a number is none.
    """
    kinds = {column.name: pa.float64() if column.kind == "number" else pa.string() for column in columns}
    try:
        first = body[: body.find(b"\n") + 1 or len(body)].decode("utf-8-sig")
        names = next(text_csv.reader([first]), [])
        options = csv.ConvertOptions(
            column_types={name: kinds.get(name, pa.string()) for name in names},
            null_values=_MISSING,
            strings_can_be_null=True,
        )
        return csv.read_csv(io.BytesIO(body), convert_options=options)
    except pa.ArrowInvalid as err:
        status = 422 if "conversion error" in str(err) else 400
        raise RequestError(status, f"the body is not CSV as it should be: {_brief(err)}") from err
    except (UnicodeDecodeError, text_csv.Error) as err:
        raise RequestError(400, f"the body is not CSV with a header: {_brief(err)}") from err


def is_columns(data: Any) -> bool:
    """Whether a JSON body holds columns: ``{"columns": {...}}`` with ``ids`` and ``times`` or without."""
    return isinstance(data, dict) and "columns" in data


def from_columns(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a JSON body by name, as `to_request` takes them.

    Raises:
        RequestError: 422, if they are not lists of one length.
    """
    extra = sorted(set(data) - {"columns", "ids", "times"})
    if extra:
        raise RequestError(
            422, f"beside 'columns', 'ids' and 'times' nothing is allowed, got {brief(extra[0])}"
        )
    columns = data["columns"]
    if not isinstance(columns, dict) or not columns:
        raise RequestError(422, f"'columns' must be an object of lists, got {brief(columns)}")
    found = dict(columns)
    for key, name in (("ids", ID), ("times", TIME)):
        if data.get(key) is not None:
            found[name] = data[key]
    lengths = {name: len(v) if isinstance(v, list) else -1 for name, v in found.items()}
    wrong = next((name for name, n in lengths.items() if n < 0), None)
    if wrong is not None:
        raise RequestError(422, f"column {wrong[:100]!r} must be a list, got {brief(found[wrong])}")
    if len(set(lengths.values())) > 1:
        raise RequestError(422, f"columns must be of one length, got {lengths}")
    return found


def to_request(
    given: pa.Table | Mapping[str, Any], encoder: Encoder, *, max_rows: int, clock: Clock
) -> TableRequest:
    """Check columns against the model's and return them as it takes them.

    Raises:
        RequestError: 413 for too many rows, 422 for a column that is missing, unknown or has a wrong value.
    """
    names = list(given.column_names if isinstance(given, pa.Table) else given)
    if len(set(names)) < len(names):
        raise RequestError(422, f"a column is there twice: {', '.join(names)[:200]}")
    rows = given.num_rows if isinstance(given, pa.Table) else len(given[names[0]])
    if rows > max_rows:
        raise RequestError(413, f"the body holds {rows} rows, at most {max_rows} are allowed")
    if rows == 0:
        raise RequestError(422, "the body must hold at least one row")
    wanted = [c.name for c in encoder.columns]
    for name in names:
        if name not in {*wanted, ID, TIME}:
            raise _wrong(name, f"unknown field{did_you_mean(name[:100], wanted)}")
    found = {}
    for column in encoder.columns:
        if column.name not in names:
            raise _wrong(column.name, "missing; give null for a value that is not known")
        values = _CHECKS[column.kind](_values(given, column.name), column.name)
        found[column.name] = encoder.spelt(column.name, values) if column.kind == "category" else values
    ids = _ids(_values(given, ID), rows) if ID in names else _new_ids(rows)
    now = clock.now()
    times = _event_times(_values(given, TIME), now) if TIME in names else [now] * rows
    return TableRequest(pa.table(found), ids, times)


def write_answers(
    kind: str, request: TableRequest, scores: NDArray[np.float64], bundle: Bundle, version: str
) -> bytes:
    """Return the answers of many rows in the form of `kind`, a content type; `scores` is ``(n_rows, k)``."""
    predicted, shares = _decide(scores, bundle)
    if kind == JSON:
        columns: dict[str, Any] = {"id": request.ids}
        if shares is None:
            columns["value"] = np.ascontiguousarray(scores[:, 0])
        else:
            columns["prediction"] = predicted.to_pylist()
            columns["probabilities"] = {
                name: np.ascontiguousarray(shares[:, i]) for i, name in enumerate(bundle.classes)
            }
        data = {"model_version": version, "columns": columns}
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    arrays: dict[str, Any] = {"id": pa.array(request.ids, pa.string())}
    if shares is None:
        arrays["value"] = scores[:, 0]
    else:
        arrays["prediction"] = predicted
        arrays |= {f"probability_{name}": shares[:, i] for i, name in enumerate(bundle.classes)}
    table = pa.table(arrays).replace_schema_metadata({"model_version": version})
    sink = io.BytesIO()
    if kind == CSV:
        csv.write_csv(table, sink)
    else:
        with ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return sink.getvalue()


def _logged(values: pa.ChunkedArray) -> list[Any] | NDArray[Any]:
    if pa.types.is_floating(values.type):
        return np.ascontiguousarray(values.to_numpy())  # what is missing is NaN, and null in JSON
    if not pa.types.is_timestamp(values.type):
        found: list[Any] = values.to_pylist()
        return found
    if values.null_count:
        return _texts(values)
    return np.ascontiguousarray(values.cast(pa.int64()).to_numpy()).view("datetime64[us]")


def _texts(instants: pa.ChunkedArray) -> list[str | None]:
    """Return instants as `format_time` writes them."""
    return [None if when is None else format_time(when) for when in instants.to_pylist()]


def _decide(scores: NDArray[np.float64], bundle: Bundle) -> tuple[pa.Array, NDArray[np.float64] | None]:
    """Return each row's class and its probabilities, shape ``(n_rows, n_classes)``; None for a value."""
    if bundle.task == "regression":
        return pa.nulls(len(scores)), None
    if bundle.task == "binary":
        shares = np.column_stack([1 - scores[:, 0], scores[:, 0]])
        best = (scores[:, 0] >= bundle.threshold).astype(np.int64)
    else:
        shares, best = scores, scores.argmax(axis=1)
    return pa.array(bundle.classes, pa.string()).take(pa.array(best)), shares


def _values(given: pa.Table | Mapping[str, Any], name: str) -> pa.Array:
    """Return one column as an Arrow array; of JSON values of several kinds their texts."""
    if isinstance(given, pa.Table):
        values = given.column(name).combine_chunks()
        return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    try:
        return pa.array(given[name])
    except (pa.ArrowException, OverflowError, TypeError):
        pass
    try:
        return pa.array([None if v is None else category_text(v) for v in given[name]], pa.string())
    except TypeError:
        raise _wrong(name, "must be numbers, texts or flags") from None


def _numbers(values: pa.Array, name: str) -> pa.Array:
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.float64())
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise _wrong(name, f"must be numbers, got {kind}")
    found = pc.cast(values, pa.float64(), safe=False)
    if found.null_count == 0 and len(found) and np.abs(found.to_numpy()).max() <= MAX_NUMBER:
        return found  # no NaN either, which compares with nothing
    found = pc.if_else(pc.is_nan(found), pa.scalar(None, pa.float64()), found)
    most = pc.max(pc.abs(found)).as_py()
    if most is not None and most > MAX_NUMBER:
        raise _wrong(name, "must be finite and within 3.4e38")
    return found


def _categories(values: pa.Array, name: str) -> pa.Array:
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.string())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
    if pa.types.is_integer(kind):
        return pc.cast(values, pa.string())
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "true", "false")
    if pa.types.is_floating(kind):
        whole = pc.all(pc.equal(values, pc.floor(values)), skip_nulls=True).as_py()
        if whole is not False:
            return pc.cast(pc.cast(values, pa.int64(), safe=False), pa.string())
    raise _wrong(name, f"must be text, flags or whole numbers, got {kind}")


def _instants(values: pa.Array, name: str) -> pa.Array:
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), TIME_TYPE)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            return pc.cast(values, TIME_TYPE)  # of texts that all have a zone
        except pa.ArrowInvalid:
            texts = values.to_pylist()
        return pa.array([None if v is None else _instant(v, name) for v in texts], TIME_TYPE)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise _wrong(name, f"must be instants or ISO 8601 text, got {kind}")
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    micros = pc.cast(values, pa.timestamp("us", zone), safe=False)
    return pc.cast(micros, TIME_TYPE)  # without a zone it is UTC already


_CHECKS: dict[str, Callable[[pa.Array, str], pa.Array]] = {
    "number": _numbers,
    "category": _categories,
    "time": _instants,
}


def _instant(value: str, name: str) -> datetime:
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        reason = f"must be ISO 8601 times such as '2013-01-01T05:00:00Z', got {brief(value)}"
        raise _wrong(name, reason) from None


def _ids(values: pa.Array, rows: int) -> list[str]:
    found: list[str] = _categories(values, ID).to_pylist()
    fresh = iter(_new_ids(rows))
    ids = [next(fresh) if one is None else one for one in found]
    if not all(0 < len(one) <= MAX_ID for one in ids):
        raise _wrong(ID, f"must be texts of 1 to {MAX_ID} characters")
    return ids


def _new_ids(rows: int) -> list[str]:
    text = os.urandom(16 * rows).hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def _event_times(values: pa.Array, now: datetime) -> list[datetime]:
    found: list[datetime | None] = _instants(values, TIME).to_pylist()
    times = [now if one is None else one.astimezone(UTC) for one in found]
    if not all(EARLIEST <= one < LATEST for one in times):
        raise _wrong(TIME, "must be from 1970 to 2199")
    return times


def _wrong(name: str, reason: str) -> RequestError:
    return RequestError(
        422, f"field {name[:100]!r}: {reason}", {"problems": [{"field": name[:100], "reason": reason}]}
    )


def _brief(err: BaseException) -> str:
    return str(err).split("\n", 1)[0][:200]
