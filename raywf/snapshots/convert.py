"""Columns of any source type to raywf's: text, float64, ``timestamp[us, UTC]``; and what text holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raywf.core.columns import TIME
from raywf.core.records import ColumnKind

_ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?\s?(Z|[+-]\d{2}:?\d{2})?)?$"


@dataclass(frozen=True, slots=True)
class TextScan:
    """What the values of a text column look like: counts of rows."""

    filled: int = 0
    numbers: int = 0
    flags: int = 0
    times: int = 0

    def __add__(self, other: TextScan) -> TextScan:
        """Sum the counts of two parts of a column."""
        return TextScan(
            self.filled + other.filled,
            self.numbers + other.numbers,
            self.flags + other.flags,
            self.times + other.times,
        )


def is_text(kind: pa.DataType) -> bool:
    """Return whether the type holds text, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def native_kind(kind: pa.DataType) -> ColumnKind | None:
    """Return the kind of a column that is not text; None for a nested or binary one."""
    if pa.types.is_dictionary(kind):
        return native_kind(kind.value_type)
    if pa.types.is_boolean(kind):
        return "category"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if any(test(kind) for test in numeric) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        return "number"
    return None


def scan_text(values: pa.ChunkedArray) -> TextScan:
    """Count what a text column's non-blank values look like."""
    text = _stripped(values).drop_null()
    if len(text) == 0:
        return TextScan()
    counted = text.value_counts().flatten()
    distinct, weights = counted[0], counted[1].to_numpy()

    def weigh(mask: np.ndarray) -> int:
        return int(weights[mask].sum())

    flags = pc.is_in(pc.utf8_lower(distinct), pa.array(["true", "false"], distinct.type))
    times = pc.match_substring_regex(distinct, _ISO)
    return TextScan(
        filled=int(weights.sum()),
        numbers=weigh(~np.isnan(_parse_numbers(distinct))),
        flags=weigh(flags.to_numpy(zero_copy_only=False)),
        times=weigh(times.to_numpy(zero_copy_only=False)),
    )


def to_number(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return float64; what is no finite number becomes missing. Durations become seconds."""
    values = plain(values)
    kind = values.type
    if is_text(kind):
        return _floats(_on_distinct(_stripped(values), _parse_numbers))
    if pa.types.is_boolean(kind):
        return pc.cast(pc.cast(values, pa.int8()), pa.float64())
    if pa.types.is_duration(kind):
        return pc.divide(pc.cast(pc.cast(values, pa.duration("us"), safe=False), pa.int64()), 1e6)
    if pa.types.is_time(kind):
        return pc.divide(pc.cast(pc.cast(values, pa.time64("us")), pa.int64()), 1e6)
    return _floats(pc.cast(values, pa.float64(), safe=False).to_numpy())


def to_time(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return instants, UTC where naive; text that is no instant becomes missing.

    Numbers become missing: an epoch's unit cannot be guessed.
    """
    values = plain(values)
    kind = values.type
    if is_text(kind):
        return _instants(_on_distinct(_stripped(values), _parse_times))
    if native_kind(kind) != "time":
        return pa.chunked_array([pa.nulls(len(values), TIME)])
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pc.cast(values, TIME, safe=False)
    return pc.assume_timezone(pc.cast(values, pa.timestamp("us"), safe=False), "UTC")


def to_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text as an id or a class is written: flags as true/false, whole numbers without a point.

    Blank text becomes missing; ``"7.0"`` and ``7`` and ``7.0`` are all ``"7"``.
    """
    values = plain(values)
    kind = values.type
    if is_text(kind):
        whole = pc.replace_substring_regex(_stripped(values), r"^(-?\d+)\.0+$", r"\1")
        return pc.cast(whole, pa.string())
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "true", "false")
    if native_kind(kind) == "time":
        return pc.strftime(to_time(values), format="%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_integer(kind):
        return pc.cast(values, pa.string())
    return _text_of_floats(to_number(values))


def to_category(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `to_text`, but with the blanks around a text kept: a request will hold them too."""
    values = plain(values)
    if not is_text(values.type):
        return to_text(values)
    filled = pc.if_else(
        pc.is_valid(_stripped(values)), pc.cast(values, pa.string()), pa.scalar(None, pa.string())
    )
    return pc.replace_substring_regex(filled, r"^(-?\d+)\.0+$", r"\1")


def to_flag_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the text in lower case, for columns that only hold true and false."""
    return pc.utf8_lower(to_text(values))


CONVERT: dict[ColumnKind, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "number": to_number,
    "category": to_category,
    "time": to_time,
}


def plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without its dictionary encoding."""
    if isinstance(values, pa.Array):
        values = pa.chunked_array([values])
    return pc.cast(values, values.type.value_type) if pa.types.is_dictionary(values.type) else values


def time_us(values: pa.ChunkedArray, *, missing: int) -> np.ndarray:
    """Return instants as int64 microseconds since the epoch, shape ``(n_rows,)``."""
    return np.asarray(pc.fill_null(pc.cast(values, pa.int64()), missing).to_numpy(), dtype=np.int64)


def _stripped(values: pa.ChunkedArray) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(pc.cast(plain(values), pa.string()))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _on_distinct(text: pa.ChunkedArray, parse: Callable[[pa.Array], np.ndarray]) -> np.ndarray:
    coded = text.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    parsed = parse(coded.dictionary)
    codes = pc.fill_null(coded.indices, len(parsed)).to_numpy(zero_copy_only=False)
    empty = np.array([np.datetime64("NaT") if parsed.dtype.kind == "M" else np.nan], dtype=parsed.dtype)
    return np.asarray(np.concatenate([parsed, empty])[codes])


def _parse_numbers(text: pa.Array) -> np.ndarray:
    parsed = pd.to_numeric(pd.Series(text.to_numpy(zero_copy_only=False), dtype=object), errors="coerce")
    return np.asarray(parsed, dtype=np.float64)


def _parse_times(text: pa.Array) -> np.ndarray:
    series = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)
    parsed = pd.to_datetime(series, utc=True, errors="coerce", format="ISO8601")
    if parsed.isna().any():
        rest = pd.to_datetime(series[parsed.isna()], utc=True, errors="coerce", format="mixed")
        parsed = parsed.astype("datetime64[us, UTC]")
        parsed[parsed.isna()] = rest.astype("datetime64[us, UTC]")
    return np.asarray(parsed.dt.tz_localize(None), dtype="datetime64[us]")


def _floats(values: np.ndarray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.float64(), mask=~np.isfinite(values))])


def _instants(values: np.ndarray) -> pa.ChunkedArray:
    return pa.chunked_array([pc.assume_timezone(pa.array(values, pa.timestamp("us")), "UTC")])


def _text_of_floats(values: pa.ChunkedArray) -> pa.ChunkedArray:
    distinct, codes = np.unique(values.to_numpy(), return_inverse=True)
    names = np.array([re.sub(r"\.0$", "", repr(float(v))) for v in distinct], dtype=object)
    text = pa.array(names[codes], pa.string(), mask=np.isnan(values.to_numpy()))
    return pa.chunked_array([text])
