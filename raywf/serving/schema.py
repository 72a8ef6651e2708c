"""Checks a request's rows against a model's input columns, compiled once a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raywf.core.category import category_text
from raywf.core.clock import format_time, parse_time
from raywf.core.errors import RowError, did_you_mean
from raywf.core.records import Column, ColumnKind

MAX_PROBLEMS = 10
MAX_NUMBER = 3.4e38  # models compute in 32-bit floats


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a row is refused; `row` counts from 0."""

    row: int
    field: str
    reason: str


class BadRowsError(RowError):
    """Rows of a request do not fit: `problems` (the first ten) and all refused rows, counted from 0."""

    def __init__(self, problems: tuple[Problem, ...], refused: frozenset[int]) -> None:
        super().__init__(problems, refused)
        self.problems, self.refused = problems, refused

    def __str__(self) -> str:
        first = self.problems[0]
        return f"row {first.row}, field {first.field!r}: {first.reason}"


class RowSchema:
    """The input columns of one model, ready to check rows. Immutable and thread-safe.

    Every column must be there; null is a missing value. Numbers are finite, categories are text, flags or
    whole numbers, times are ISO 8601 text.

    >>> schema = RowSchema((Column(name="x", kind="number"), Column(name="c", kind="category")))
    >>> schema.read_rows([{"x": 1, "c": True}])
    [{'x': 1.0, 'c': 'true'}]
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._readers = tuple((c.name, _READERS[c.kind]) for c in columns)
        self._names = frozenset(c.name for c in columns)

    def read_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return each row's values by column name, as the model and the log take them.

        Raises:
            BadRowsError: if any row does not fit; none is returned then.

        """
        good: list[dict[str, Any]] = []
        problems: list[Problem] = []
        refused: set[int] = set()
        for i, row in enumerate(rows):
            values = self._read(row)
            if values is not None:
                good.append(values)
                continue
            refused.add(i)
            if len(problems) < MAX_PROBLEMS:
                problems.extend(self._problems(row, i))
        if refused:
            raise BadRowsError(tuple(problems[:MAX_PROBLEMS]), frozenset(refused))
        return good

    def _read(self, row: Any) -> dict[str, Any] | None:
        if not isinstance(row, dict) or len(row) != len(self._readers):
            return None
        values: dict[str, Any] = {}
        try:
            for name, read in self._readers:
                value = row[name]
                values[name] = None if value is None else read(value)
        except (KeyError, ValueError):
            return None
        return values

    def _problems(self, row: Any, index: int) -> list[Problem]:
        if not isinstance(row, dict):
            return [Problem(index, "features", f"must be an object of field to value, got {brief(row)}")]
        return [Problem(index, *pair) for pair in (*self._unknown(row), *self._wrong(row))]

    def _unknown(self, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        names = [name for name in row if name not in self._names]
        return [
            (name[:100], f"unknown field{did_you_mean(name[:100], self._names)}")
            for name in names[:MAX_PROBLEMS]
        ]

    def _wrong(self, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = []
        for name, read in self._readers:
            if name not in row:
                found.append((name, "missing; give null for a value that is not known"))
            elif row[name] is not None:
                try:
                    read(row[name])
                except ValueError as err:
                    found.append((name, str(err)))
        return found


def brief(value: Any) -> str:
    """Return the value as text of at most 60 characters."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _number(value: Any) -> float:
    if type(value) is float or type(value) is int:
        if -MAX_NUMBER <= value <= MAX_NUMBER:
            return float(value)
        raise ValueError(f"must be finite and within 3.4e38, got {brief(value)}")
    raise ValueError(f"must be a number, got {brief(value)}")


def _category(value: Any) -> str | None:
    if type(value) in (str, bool, int) or (type(value) is float and value.is_integer()):
        return category_text(value).strip() or None  # as a snapshot has it
    raise ValueError(f"must be text, true, false or a whole number, got {brief(value)}")


def _instant(value: Any) -> str:
    if type(value) is str:
        try:
            return format_time(parse_time(value))
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"must be an ISO 8601 time such as '2013-01-01T05:00:00Z', got {brief(value)}")


_READERS: dict[ColumnKind, Callable[[Any], Any]] = {
    "number": _number,
    "category": _category,
    "time": _instant,
}
