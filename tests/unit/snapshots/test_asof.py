"""The as-of kernel against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.errors import ValidationError
from raywf.snapshots.asof import NO_ROW, ViewRows, match_asof, match_key

_view_row = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(-3, 8))
_row = st.tuples(st.integers(-1, 4), st.integers(0, 15))


def brute_force(row, view, max_age):
    """The definition: the greatest (event, known, order) among what was known, if it is not too old."""
    group, time = row
    usable = [
        (event, event + lag, order)
        for order, (key, event, lag) in enumerate(view)
        if key == group and event <= time and event + lag <= time
    ]
    if not usable:
        return NO_ROW
    event, _, order = max(usable)
    return order if max_age is None or time - event <= max_age else NO_ROW


@settings(max_examples=300, deadline=None)
@given(st.lists(_row, max_size=12), st.lists(_view_row, max_size=20), st.none() | st.integers(0, 6))
def test_each_row_gets_the_latest_value_known(rows, view, max_age):
    """Late values, corrections, ties and ages: every match is the brute-force one."""
    columns = np.array(view, dtype=np.int64).reshape(-1, 3).T
    table = ViewRows(columns[0], columns[1], columns[1] + columns[2])
    spine = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    found = match_asof(spine[0], spine[1], table, max_age_us=max_age)
    assert found.tolist() == [brute_force(row, view, max_age) for row in rows]


def test_a_correction_known_later_is_used_only_from_then():
    """The same event time told twice: the second telling counts once it is known."""
    view = ViewRows(np.array([0, 0]), np.array([10, 10]), np.array([10, 20]))
    assert match_asof(np.array([0, 0]), np.array([19, 20]), view).tolist() == [0, 1]


def test_a_late_old_value_does_not_hide_a_newer_one():
    """A value of an earlier event that becomes known last is not the latest value."""
    view = ViewRows(np.array([0, 0]), np.array([10, 5]), np.array([10, 20]))
    assert match_asof(np.array([0]), np.array([30]), view).tolist() == [0]


def test_instants_of_today_do_not_overflow():
    """Microseconds since 1970 and many groups fit the composite of 64 bits."""
    n = 100_000
    now = 1_700_000_000_000_000
    group, event = np.arange(n), now + np.arange(n)
    found = match_asof(group, event, ViewRows(group, event, event))
    assert np.array_equal(found, np.arange(n))


def test_lookup_refuses_a_repeated_key():
    """A view without times may hold each key once."""
    with pytest.raises(ValidationError, match="view 'planes' has no event_time and 1 of its rows"):
        match_key(np.array([0]), np.array([0, 1, 1]), view="planes")


def test_lookup_finds_keys_and_nothing_for_unknown_ones():
    """A key that the view lacks, or a missing one, matches no row."""
    assert match_key(np.array([5, 2, -1, 9]), np.array([9, 5, 7]), view="v").tolist() == [1, -1, -1, 0]
