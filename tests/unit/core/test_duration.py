"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1.5h", timedelta(minutes=90)),
        (" 2 w ", timedelta(weeks=2)),
    ],
)
def test_each_unit_is_read(text: str, value: timedelta) -> None:
    """A number and a unit, with or without blanks."""
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "5", "h", "-3d", "3 months", "1d12h", "nan s"])
def test_anything_else_is_refused(text: str) -> None:
    """The message shows the form and what was given."""
    with pytest.raises(ValueError, match="a duration is a number and a unit"):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    """Writing and reading give the same, to the millisecond."""
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value
