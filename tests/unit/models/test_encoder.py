"""The one encoding: the row path of serving equals the table path of training."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import COLUMNS, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.category import MAX_CATEGORIES
from raywf.core.clock import format_time
from raywf.core.errors import RowError
from raywf.core.records import Column
from raywf.models.encoding import fit_encoder

ENCODER = fit_encoder(make_table(), COLUMNS)
NUMBERS = st.none() | st.floats(allow_nan=False)
LANES = st.none() | st.sampled_from(["n", "s", "w"]) | st.text(max_size=5)
INSTANTS = st.none() | st.datetimes(
    min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)
)
ROWS = st.fixed_dictionaries({"size": NUMBERS, "empty": NUMBERS, "lane": LANES, "asked": INSTANTS})
SCHEMA = pa.schema(
    {"size": pa.float64(), "empty": pa.float64(), "lane": pa.string(), "asked": pa.timestamp("us", "UTC")}
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5))
def test_rows_equal_the_table(rows: list[dict[str, Any]]) -> None:
    """Any values, missing ones, unknown categories: both paths give the same matrix."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    np.testing.assert_array_equal(ENCODER.rows(rows), ENCODER.table(table))


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_absent_is_missing(row: dict[str, Any]) -> None:
    """A field that is left out counts as one without a value."""
    filled = {k: v for k, v in row.items() if v is not None}
    np.testing.assert_array_equal(ENCODER.rows([filled]), ENCODER.rows([row]))


@settings(max_examples=30, deadline=None)
@given(INSTANTS.filter(lambda v: v is not None))
def test_instants_as_text(instant: datetime) -> None:
    """ISO 8601 text, as JSON carries it, gives what the instant gives."""
    np.testing.assert_array_equal(
        ENCODER.rows([{"asked": format_time(instant)}]), ENCODER.rows([{"asked": instant}])
    )


def test_dictionary_columns_are_coded_like_text() -> None:
    """Arrow's dictionary type is a way to store text."""
    table = make_table()
    at = table.column_names.index("lane")
    stored = table.set_column(at, "lane", table.column("lane").dictionary_encode())
    np.testing.assert_array_equal(fit_encoder(stored, COLUMNS).table(stored), ENCODER.table(table))


def test_rare_categories_have_no_code() -> None:
    """The commonest are kept, equal ones in the order of their text, and the rest is unknown."""
    values = [f"v{i:03}" for i in range(MAX_CATEGORIES)] + ["z often"] * 3
    encoder = fit_encoder(pa.table({"c": values}), (Column(name="c", kind="category"),))
    assert encoder.categories["c"][:2] == ("z often", "v000")
    assert encoder.sizes == (MAX_CATEGORIES,)
    assert np.isnan(encoder.rows([{"c": values[MAX_CATEGORIES - 1]}])).all()


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("size", "wide", "number"),
        ("size", [1], "number"),
        ("lane", {"a": 1}, "category"),
        ("asked", "yesterday", "time"),
        ("asked", 7, "time"),
    ],
)
def test_wrong_type_names_the_field(field: str, value: Any, kind: str) -> None:
    """The refusal says which field and what was expected."""
    with pytest.raises(RowError, match=f"field '{field}': expected a {kind}, got "):
        ENCODER.rows([{field: value}])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1e300, 1e30),
        (-1e300, -1e30),
        (10**400, 1e30),
        (1e-300, 0.0),
        (float("inf"), None),
        (-float("inf"), None),
    ],
)
def test_numbers_beyond_float32(value: Any, wanted: float | None) -> None:
    """Kept in bounds; infinite ones count as missing; in a row as in a table."""
    row = ENCODER.rows([{"size": value}])
    np.testing.assert_array_equal(row, ENCODER.rows([{"size": wanted}]))
    if isinstance(value, float):
        table = pa.Table.from_pylist([{"size": value}], schema=SCHEMA)
        np.testing.assert_array_equal(row, ENCODER.table(table))
