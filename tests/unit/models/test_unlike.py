"""Values that training had not, by the profile that a bundle keeps."""

from __future__ import annotations

from typing import Any

import pytest

from raywf.core.records import ColumnProfile
from raywf.models.unlike import Unlike

NUMBER = ColumnProfile(name="x", kind="number", edges=(-0.5, 1.0, 9.0), counts=(0, 5, 5, 0), missing=1)
FLAG = ColumnProfile(name="f", kind="category", values=("false", "true"), counts=(5, 5, 0))
MANY = ColumnProfile(name="m", kind="category", values=("a",), counts=(5, 5))
EMPTY = ColumnProfile(name="e", kind="number", counts=(0,), missing=10)
ROW = {"x": 1.0, "f": "true", "m": "a", "e": None}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({}, []),
        ({"x": 9}, []),
        ({"x": 9.1, "f": "maybe"}, ["x", "f"]),
        ({"x": -0.5}, ["x"]),
        ({"x": None, "f": None}, ["f"]),
        ({"f": "True"}, []),  # the model reads it as true
        ({"m": "z"}, []),
        ({"e": 1.0}, ["e"]),
        ({"x": "5"}, ["x"]),  # another version's column of this name may be text
    ],
)
def test_columns_are_named(changed: dict[str, Any], names: list[str]) -> None:
    """Those beyond the range, new, missing where they never were, or there where they never were."""
    assert Unlike([NUMBER, FLAG, MANY, EMPTY]).names(ROW | changed) == names


def test_a_row_may_lack_columns() -> None:
    """Where another version answers it: they are missing."""
    assert Unlike([NUMBER, FLAG]).names({}) == ["f"]


def test_a_profile_without_ranges_tells_nothing() -> None:
    """It was kept before there were any."""
    old = ColumnProfile(name="x", kind="number", edges=(1.0,), counts=(5, 5))
    assert Unlike([old, FLAG]).names({"x": None, "f": "maybe"}) == []
    assert Unlike([]).names(ROW) == []
