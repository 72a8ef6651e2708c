"""From named values to one float32 row: the only encoding, used in training and in serving alike.

Layout, column by column in the schema's order: a number gives itself, a category its code (order of
frequency in training), an instant four columns (days since 1970, month, weekday, hour). Missing, unknown and
infinite give nan. Numbers are kept within what every library's float32 arithmetic bears: those beyond 1e30
become that, those nearer to 0 than 1e-35 become 0, as LightGBM reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raywf.core.category import MAX_CATEGORIES, category_text, spellings
from raywf.core.clock import parse_time
from raywf.core.columns import ARROW_TYPE
from raywf.core.errors import RowError
from raywf.core.records import Column

Matrix = NDArray[np.float32]
_NAN = float("nan")
_LARGEST, _SMALLEST = 1e30, 1e-35
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_PARTS = ("days", "month", "weekday", "hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Columns and, for each category column, the texts that have a code (the position is the code)."""

    columns: tuple[Column, ...]
    categories: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the encoded columns, shape ``(n_features,)``."""
        out: list[str] = []
        for column in self.columns:
            if column.kind == "time":
                out += [f"{column.name}.{part}" for part in _TIME_PARTS]
            else:
                out.append(column.name)
        return tuple(out)

    @property
    def sizes(self) -> tuple[int, ...]:
        """For each encoded column its number of categories; 0 for a number."""
        out: list[int] = []
        for column in self.columns:
            if column.kind == "time":
                out += [0] * len(_TIME_PARTS)
            else:
                out.append(len(self.categories.get(column.name, ())))
        return tuple(out)

    def table(self, table: pa.Table) -> Matrix:
        """Encode a whole table, shape ``(n_rows, n_features)``, C-contiguous."""
        out = np.empty((table.num_rows, len(self.names)), dtype=np.float32)
        at = 0
        for column in self.columns:
            values = table.column(column.name)
            if column.kind == "number":
                out[:, at] = _numbers(values)
            elif column.kind == "category":
                out[:, at] = _codes(values, self.categories[column.name])
            else:
                out[:, at : at + 4] = _instants(values)
            at += 4 if column.kind == "time" else 1
        return out

    def spelt(self, name: str, values: pa.Array) -> pa.Array:
        """Return texts of a category column, those that are another spelling of a known one as that one."""
        known = self.categories.get(name, ())
        others = {text: known[code] for text, code in spellings(known).items()}
        others = {text: right for text, right in others.items() if text != right}
        if not others:
            return values
        at = pc.index_in(values, value_set=pa.array(list(others), pa.string()))
        return pc.if_else(pc.is_null(at), values, pa.array(list(others.values()), pa.string()).take(at))

    def compile(self) -> Callable[[Mapping[str, Any], Matrix], None]:
        """Return a function that encodes one row of named values into a preallocated float32 vector.

        It raises RowError, naming the field, for a value of the wrong type.
        """
        steps: list[tuple[str, str, dict[str, int], int]] = []
        at = 0
        for column in self.columns:
            codes = spellings(self.categories.get(column.name, ()))
            steps.append((column.name, column.kind, codes, at))
            at += 4 if column.kind == "time" else 1

        def encode(row: Mapping[str, Any], out: Matrix) -> None:
            for name, kind, codes, i in steps:
                value = row.get(name)
                try:
                    if kind == "number":
                        out[i] = _NAN if value is None else _bounded(value)
                    elif kind == "category":
                        out[i] = _NAN if value is None else codes.get(category_text(value), _NAN)
                    else:
                        out[i : i + 4] = _NAN if value is None else _instant_parts(value)
                except (TypeError, ValueError) as err:
                    raise RowError(f"field {name!r}: expected a {kind}, got {value!r}") from err

        return encode

    def arrow(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return rows of named values, which `compile`'s function accepts, as a snapshot's columns."""
        found = {}
        for c in self.columns:
            known = self.categories.get(c.name, ())
            spelt = {text: known[code] for text, code in spellings(known).items()}
            values = [_as_it_is(row.get(c.name), c.kind, spelt) for row in rows]
            found[c.name] = pa.array(values, ARROW_TYPE[c.kind])
        return pa.table(found)

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> Matrix:
        """Encode rows of named values, shape ``(n_rows, n_features)``."""
        out = np.empty((len(rows), len(self.names)), dtype=np.float32)
        encode = self.compile()
        for i, row in enumerate(rows):
            encode(row, out[i])
        return out


def _as_it_is(value: Any, kind: str, spelt: Mapping[str, str]) -> Any:
    """Return a value of a request as a snapshot has it: float64, text or an instant; null where missing."""
    if value is None:
        return None
    if kind == "number":
        try:
            number = float(value)
        except OverflowError:  # of a whole number beyond any float
            return None
        return number if abs(number) < float("inf") else None
    if kind == "time":
        return _instant(value)
    text = category_text(value).strip()
    return spelt.get(text, text) or None


def fit_encoder(table: pa.Table, columns: tuple[Column, ...]) -> Encoder:
    """Learn which categories get a code: the commonest `MAX_CATEGORIES` of each column."""
    categories: dict[str, tuple[str, ...]] = {}
    for column in columns:
        if column.kind == "category":
            counted = pc.value_counts(_flat(table.column(column.name)).drop_null()).to_pylist()
            counted.sort(key=lambda item: (-item["counts"], item["values"]))
            categories[column.name] = tuple(item["values"] for item in counted[:MAX_CATEGORIES])
    return Encoder(columns=columns, categories=categories)


def _flat(values: pa.ChunkedArray) -> pa.Array:
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    return flat if pa.types.is_string(flat.type) else flat.cast(pa.string())


def _numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    floats = np.asarray(pc.fill_null(values.cast(pa.float64()), _NAN).to_numpy())
    size = np.abs(floats)
    if not (size >= _SMALLEST).all() or not (size <= _LARGEST).all():  # nan is neither
        floats = np.where(size < _SMALLEST, 0.0, np.clip(floats, -_LARGEST, _LARGEST))
        floats[np.isinf(size)] = _NAN
    return floats


def _bounded(value: Any) -> Any:
    """Return a number as `_numbers` does.

    >>> _bounded(2.5), _bounded(-1e300), _bounded(1e-300), _bounded(float("inf"))
    (2.5, -1e+30, 0.0, nan)
    """
    if type(value) is float and (_SMALLEST < value < _LARGEST or -_LARGEST < value < -_SMALLEST):
        return value
    try:
        number = float(value)
    except OverflowError:  # of a whole number beyond any float
        return _LARGEST if value > 0 else -_LARGEST
    if abs(number) < _SMALLEST:
        return 0.0
    return max(-_LARGEST, min(_LARGEST, number)) if abs(number) < float("inf") else _NAN


def _codes(values: pa.ChunkedArray, known: tuple[str, ...]) -> NDArray[np.float64]:
    found = pc.index_in(_flat(values), value_set=pa.array(known, pa.string()), skip_nulls=True)
    return np.asarray(pc.fill_null(found.cast(pa.float64()), _NAN).to_numpy(zero_copy_only=False))


def _instants(values: pa.ChunkedArray) -> NDArray[np.float64]:
    stamps = values.cast(pa.timestamp("us", "UTC"))
    micros = pc.fill_null(stamps.cast(pa.int64()).cast(pa.float64(), safe=False), _NAN)
    parts = [
        pc.fill_null(p.cast(pa.float64()), _NAN)
        for p in (pc.month(stamps), pc.day_of_week(stamps), pc.hour(stamps))
    ]
    days = np.floor(np.asarray(micros.to_numpy()) / 86_400e6)
    return np.column_stack([days, *(np.asarray(p.to_numpy()) for p in parts)])


def _instant(value: Any) -> datetime:
    if not isinstance(value, (str, datetime)):
        raise TypeError(f"not an instant: {value!r}")
    return parse_time(value) if isinstance(value, str) else value.astimezone(UTC)


def _instant_parts(value: Any) -> tuple[float, float, float, float]:
    when = _instant(value)
    days = (when - _EPOCH).days
    return float(days), float(when.month), float(when.weekday()), float(when.hour)
