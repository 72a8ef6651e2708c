"""Rows are checked against the model's columns, and every fault is named."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.records import Column
from raywf.serving.schema import BadRowsError, Problem, RowSchema

SCHEMA = RowSchema(
    (
        Column(name="distance", kind="number"),
        Column(name="carrier", kind="category"),
        Column(name="departure", kind="time"),
    )
)
GOOD = {"distance": 5, "carrier": "UA", "departure": "2013-01-01T05:00:00+02:00"}


def test_good_row_is_normalised() -> None:
    """Numbers become floats, times UTC."""
    values = {"distance": 5.0, "carrier": "UA", "departure": "2013-01-01T03:00:00Z"}
    assert SCHEMA.read_rows([GOOD]) == [values]


def test_null_is_a_missing_value() -> None:
    """Null is allowed in every column."""
    row = dict.fromkeys(GOOD)
    assert SCHEMA.read_rows([row]) == [row]


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (3, "3"), (3.0, "3"), ("", None), (" UA\u00a0", "UA"), (" ", None)],
)
def test_categories_become_text(value: object, text: str | None) -> None:
    """Flags and whole numbers are categories too; space around a text is none of it, as in a snapshot."""
    assert SCHEMA.read_rows([GOOD | {"carrier": value}])[0]["carrier"] == text


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("distance", "5", "must be a number, got '5'"),
        ("distance", True, "must be a number, got True"),
        ("distance", [1], "must be a number, got a list of 1"),
        ("distance", float("nan"), "must be finite"),
        ("distance", float("inf"), "must be finite"),
        ("distance", 10**40, "must be finite and within 3.4e38"),
        ("carrier", 1.5, "must be text, true, false or a whole number, got 1.5"),
        ("carrier", {}, "got an object of 0"),
        ("departure", "yesterday", "must be an ISO 8601 time"),
        ("departure", 5, "must be an ISO 8601 time"),
        ("departure", "0001-01-01T00:00:00+23:00", "must be an ISO 8601 time"),
        ("carier", "UA", "unknown field; did you mean 'carrier'?"),
    ],
)
def test_wrong_value_names_field_and_reason(field: str, value: object, reason: str) -> None:
    """The message says which field, what is allowed and what came."""
    with pytest.raises(BadRowsError) as caught:
        SCHEMA.read_rows([GOOD, GOOD | {field: value}])
    problem = caught.value.problems[0]
    assert (problem.row, problem.field) == (1, field)
    assert reason in problem.reason


def test_missing_field_is_named() -> None:
    """A column that is not there is not taken as null."""
    with pytest.raises(BadRowsError, match="row 0, field 'departure': missing; give null"):
        SCHEMA.read_rows([{"distance": 1, "carrier": "UA"}])


def test_every_bad_row_is_counted() -> None:
    """Ten problems are listed, all refused rows are counted."""
    with pytest.raises(BadRowsError) as caught:
        SCHEMA.read_rows([GOOD, *[{}] * 30, "x"])
    assert len(caught.value.problems) == 10
    assert caught.value.refused == frozenset(range(1, 32))


def test_error_survives_pickling() -> None:
    """The error crosses processes with its problems."""
    error = BadRowsError((Problem(1, "x", "bad"),), frozenset({1}))
    again = pickle.loads(pickle.dumps(error))
    assert (again.problems, again.refused, str(again)) == (error.problems, frozenset({1}), str(error))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(GOOD, JSON)) | JSON, min_size=1, max_size=4))
def test_any_json_is_read_or_refused(rows: list[object]) -> None:
    """No value brings anything but rows or a refusal that names a row."""
    try:
        read = SCHEMA.read_rows(rows)
    except BadRowsError as err:
        problems, refused = err.problems, err.refused
    else:
        problems, refused = (), frozenset()
        assert [set(values) for values in read] == [set(GOOD)] * len(rows)
    assert refused <= set(range(len(rows)))
    assert {p.row for p in problems} <= refused
    assert bool(problems) == bool(refused)
