"""Columns to raywf's types."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from raywf.snapshots.convert import scan_text, to_category, to_number, to_text, to_time


def column(values, kind=None):
    """A chunked column of two chunks."""
    whole = pa.array(values, kind)
    half = len(values) // 2
    return pa.chunked_array([whole[:half], whole[half:]])


def test_text_becomes_numbers_and_the_rest_missing():
    """Blanks around, blanks only, infinities and words."""
    values = column([" 1.5", "", "x", "inf", "-2e3", None], pa.string())
    assert to_number(values).to_pylist() == [1.5, None, None, None, -2000.0, None]


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ([7, None], pa.int64(), ["7", None]),
        ([7.0, 7.25], pa.float64(), ["7", "7.25"]),
        ([True, False], pa.bool_(), ["true", "false"]),
        (["7.0", " a "], pa.string(), ["7", "a"]),
    ],
)
def test_ids_are_written_alike_whatever_their_type(values, kind, text):
    """An id that is 7 in one table and 7.0 in another is the same id."""
    assert to_text(column(values, kind)).to_pylist() == text


def test_a_category_keeps_its_blanks():
    """Padded text is sent padded in a request too; only empty text is missing."""
    assert to_category(column(["BB  ", "  "], pa.string())).to_pylist() == ["BB  ", None]


@pytest.mark.parametrize(
    "value", ["2013-01-31T05:00:00Z", "2013-01-31 06:00:00+01:00", datetime(2013, 1, 31, 5)]
)
def test_instants_are_utc(value):
    """With an offset, with Z, or naive."""
    assert to_time(column([value, value]))[0].as_py() == datetime(2013, 1, 31, 5, tzinfo=UTC)


def test_dates_are_midnight_utc():
    """A date is its first instant."""
    assert to_time(column([date(2013, 1, 31), None]))[0].as_py() == datetime(2013, 1, 31, tzinfo=UTC)


def test_mixed_offsets_and_forms_parse():
    """A column may mix dates, instants and offsets."""
    times = to_time(column(["2013-01-01", "2013-01-01T01:00:00+01:00", "nonsense", None], pa.string()))
    midnight = datetime(2013, 1, 1, tzinfo=UTC)
    assert times.to_pylist() == [midnight, midnight, None, None]


def test_scan_counts_what_text_looks_like():
    """Numbers, flags and instants are counted among the values that are not blank."""
    scan = scan_text(column(["1", "2.5", "true", "2013-01-01", " ", None], pa.string()))
    assert (scan.filled, scan.numbers, scan.flags, scan.times) == (4, 2, 1, 1)
