"""Column profiles."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from raywf.core.records import Column
from raywf.snapshots.profile import profile_column


def number(values):
    """Profile of numbers."""
    return profile_column(pa.chunked_array([pa.array(values, pa.float64())]), Column(name="x", kind="number"))


def test_ten_bins_of_equal_mass():
    """A hundred distinct numbers: ten in each bin, none beyond their range."""
    profile = number(np.arange(100.0))
    assert profile.counts == (0, *(10,) * 10, 0)
    assert profile.edges[0] < 0.0 <= np.nextafter(profile.edges[0], 1.0)
    assert profile.edges[-1] == 99.0
    assert profile.has_range


def test_a_value_on_an_edge_belongs_to_the_lower_bin():
    """Bin i holds edges[i-1] < x <= edges[i]."""
    profile = number([1.0] * 6 + [2.0] * 4)
    assert (profile.edges[1:], profile.counts) == ((1.0, 2.0), (0, 6, 4, 0))


def test_a_constant_has_one_bin():
    """All rows in one bin, missing counted."""
    profile = number([3.0, 3.0, None])
    assert (profile.edges[1:], profile.counts, profile.missing) == ((3.0,), (0, 2, 0), 1)


def test_wholly_missing():
    """An empty column has an empty bin."""
    profile = number([None, None])
    assert (profile.counts, profile.missing) == ((0,), 2)


def test_rare_categories_are_counted_together():
    """Fifty values by name, the others in one count."""
    text = pa.chunked_array([pa.array(["a", "a"] + [f"v{i:02}" for i in range(60)])])
    profile = profile_column(text, Column(name="s", kind="category"))
    assert profile.values[0] == "a"
    assert (len(profile.values), profile.counts[0], profile.counts[-1]) == (50, 2, 11)


def test_times_are_days():
    """An instant is profiled as days since the epoch."""
    at = pa.chunked_array(
        [pa.array([datetime(1970, 1, d, tzinfo=UTC) for d in (1, 2, 3)], pa.timestamp("us", "UTC"))]
    )
    profile = profile_column(at, Column(name="t", kind="time"))
    assert (profile.edges, profile.has_range) == ((0.0, 1.0), False)
