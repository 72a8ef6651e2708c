"""One column of a request, a list of JSON values or an Arrow array, as the model takes it, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raywf.core.category import category_text
from raywf.core.clock import parse_time
from raywf.core.columns import TIME as TIME_TYPE
from raywf.core.errors import did_you_mean
from raywf.core.records import ColumnKind
from raywf.serving.requests import EARLIEST, LATEST, MAX_ID, RequestError
from raywf.serving.schema import MAX_NUMBER, brief

ID, TIME = "__id", "__time"  # columns of a table beside the features; both may be missing
Given: TypeAlias = "list[Any] | pa.Array"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_JSON: dict[str, tuple[frozenset[type], str]] = {
    "id": (frozenset({str, NoneType}), "must be texts"),
    "number": (frozenset({float, int, NoneType}), "must be numbers"),
    "category": (frozenset({str, bool, int, float, NoneType}), "must be text, flags or whole numbers"),
    "time": (frozenset({str, NoneType}), "must be ISO 8601 text"),
}


def read_column(given: Given, kind: ColumnKind, name: str, *, max_bytes: int) -> pa.Array:
    """Return a feature's values as a snapshot has them: float64, text, or instants (UTC).

    Raises:
        RequestError: 422 for a value of another kind or out of range, 413 for a dictionary's texts that are
            longer than `max_bytes` when written out.
    """
    return _guarded(given, name, lambda values: _CHECKS[kind](values, name), kind, max_bytes)


def read_ids(given: Given | None, rows: int, *, max_bytes: int) -> list[str]:
    """Return each row's id, a fresh one where none is given.

    Raises:
        RequestError: 422 for one that is no text of 1 to 200 characters; 413 as `read_column`.
    """
    if given is None:
        return _fresh_ids(rows)
    found: list[str | None] = _guarded(given, ID, _id_texts, "id", max_bytes).to_pylist()
    fresh = iter(_fresh_ids(rows) if None in found else ())
    ids = [next(fresh) if one is None else one for one in found]
    if not all(0 < len(one) <= MAX_ID for one in ids):
        raise wrong(ID, f"must be texts of 1 to {MAX_ID} characters")
    return ids


def read_times(given: Given | None, rows: int, now: datetime, *, max_bytes: int) -> list[datetime]:
    """Return each row's event time, `now` where none is given.

    Raises:
        RequestError: 422 for one that is no instant from 1970 to 2199; 413 as `read_column`.
    """
    if given is None:
        return [now] * rows
    values = read_column(given, "time", TIME, max_bytes=max_bytes)
    span = pc.min_max(values.cast(pa.int64())).as_py()
    if span["min"] is not None and not (_us(EARLIEST) <= span["min"] and span["max"] < _us(LATEST)):
        raise wrong(TIME, "must be from 1970 to 2199")
    return [now if one is None else one.astimezone(UTC) for one in values.to_pylist()]


def check_names(names: Sequence[str], wanted: Sequence[str]) -> None:
    """Check that there is each wanted column once, and beside them at most ids and times.

    Raises:
        RequestError: 422 naming one that is there twice, unknown or missing.
    """
    if len(set(names)) < len(names):
        raise RequestError(422, f"a column is there twice: {', '.join(names[:20])[:200]}")
    for name in names:
        if name not in {*wanted, ID, TIME}:
            raise wrong(name, f"unknown field{did_you_mean(name[:100], wanted)}")
    for name in wanted:
        if name not in names:
            raise wrong(name, "missing; give null for a value that is not known")


def wrong(name: str, reason: str) -> RequestError:
    """Return the refusal of a column."""
    return RequestError(
        422, f"field {name[:100]!r}: {reason}", {"problems": [{"field": name[:100], "reason": reason}]}
    )


def _guarded(
    given: Given, name: str, check: Callable[[pa.Array], pa.Array], kind: str, max_bytes: int
) -> pa.Array:
    try:
        values = _of_json(given, kind, name) if isinstance(given, list) else _plain(given, name, max_bytes)
        return check(values)
    except (pa.ArrowException, UnicodeError, OverflowError) as err:
        raise wrong(name, f"cannot be read: {brief(str(err).partition(chr(10))[0])}") from err


def _of_json(values: list[Any], kind: str, name: str) -> pa.Array:
    """Return JSON values as numbers or texts, each of them of a type that a row may have there."""
    allowed, rule = _JSON[kind]
    found = set(map(type, values))
    if not found <= allowed:
        first = next(value for value in values if type(value) not in allowed)
        raise wrong(name, f"{rule}, got {brief(first)}")
    if kind == "number":
        if int in found:
            values = [None if value is None else float(value) for value in values]
        return pa.array(values, pa.float64())
    if found <= {str, NoneType}:
        return pa.array(values, pa.string())
    return pa.array(_texts(values, name), pa.string())


def _texts(values: Sequence[Any], name: str) -> list[str | None]:
    for value in values:
        if isinstance(value, float) and value == value and not value.is_integer():
            raise wrong(name, f"must be text, flags or whole numbers, got {brief(value)}")
    return [None if v is None or v != v else category_text(v) for v in values]


def _plain(values: pa.Array, name: str, max_bytes: int) -> pa.Array:
    """Return an array without dictionary and of a type that Arrow computes with."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        known = _computable(values.dictionary)
        if pa.types.is_nested(known.type) or pa.types.is_dictionary(known.type):
            raise wrong(name, f"must be plain values, got {_said(kind)}")
        if pa.types.is_string(known.type) or pa.types.is_large_string(known.type):
            written = pc.sum(pc.take(pc.binary_length(known), values.indices)).as_py() or 0
            if written > max_bytes:
                reason = f"the texts of column {name[:100]!r} are longer than {max_bytes} bytes"
                raise RequestError(413, reason)
        return pc.take(known, values.indices)
    return _computable(values)


def _computable(values: pa.Array) -> pa.Array:
    if pa.types.is_string_view(values.type):
        return values.cast(pa.string())
    return values.cast(pa.float32()) if pa.types.is_float16(values.type) else values


def _numbers(values: pa.Array, name: str) -> pa.Array:
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.float64())
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise wrong(name, f"must be numbers, got {_said(kind)}")
    found = pc.cast(values, pa.float64(), safe=False)
    if found.null_count == 0 and len(found) and np.abs(found.to_numpy()).max() <= MAX_NUMBER:
        return found  # no NaN either, which compares with nothing
    found = pc.if_else(pc.is_nan(found), pa.scalar(None, pa.float64()), found)
    most = pc.max(pc.abs(found)).as_py()
    if most is not None and most > MAX_NUMBER:
        raise wrong(name, "must be finite and within 3.4e38")
    return found


def _categories(values: pa.Array, name: str) -> pa.Array:
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.string())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if pa.types.is_integer(kind):
        return pc.cast(values, pa.string())
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "true", "false")
    if pa.types.is_floating(kind):
        return pa.array(_texts(values.to_pylist(), name), pa.string())
    raise wrong(name, f"must be text, flags or whole numbers, got {_said(kind)}")


def _instants(values: pa.Array, name: str) -> pa.Array:
    kind = values.type
    if pa.types.is_null(kind):
        return pa.nulls(len(values), TIME_TYPE)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = _parsed(values, name)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        whole = pc.CastOptions(pa.timestamp("us", zone), allow_time_truncate=True)
        found = pc.cast(pc.cast(values, options=whole), TIME_TYPE)  # without a zone it is UTC already
    else:
        raise wrong(name, f"must be instants or ISO 8601 text, got {_said(kind)}")
    span = pc.min_max(found.cast(pa.int64())).as_py()
    if span["min"] is not None and not _FIRST_US <= span["min"] <= span["max"] <= _LAST_US:
        raise wrong(name, "must be within the years 1 to 9999")
    return found


def _parsed(values: pa.Array, name: str) -> pa.Array:
    try:
        return pc.cast(values, TIME_TYPE)  # of texts that all have a zone
    except pa.ArrowInvalid:
        texts = values.to_pylist()
    return pa.array([None if text is None else _instant(text, name) for text in texts], TIME_TYPE)


def _instant(value: str, name: str) -> datetime:
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        reason = f"must be ISO 8601 times such as '2013-01-01T05:00:00Z', got {brief(value)}"
        raise wrong(name, reason) from None


_CHECKS: dict[ColumnKind, Callable[[pa.Array, str], pa.Array]] = {
    "number": _numbers,
    "category": _categories,
    "time": _instants,
}


def _id_texts(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_large_string(kind):
        return pc.cast(values, pa.string())
    if not pa.types.is_string(kind):
        raise wrong(ID, f"must be texts, got {_said(kind)}")
    return values


def _fresh_ids(rows: int) -> list[str]:
    text = os.urandom(16 * rows).hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _said(kind: pa.DataType) -> str:
    return str(kind)[:60]
