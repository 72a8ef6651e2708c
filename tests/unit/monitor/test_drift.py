"""Bins of live values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.records import Column, ColumnProfile, Drift
from raywf.monitor.drift import (
    MISSING,
    as_in_training,
    bin_names,
    bin_values,
    compare_codes,
    control_drift,
    measure_drift,
    unlike_training,
)
from raywf.snapshots.profile import profile_column

NUMBER = ColumnProfile(name="x", kind="number", edges=(0.0, 1.0), counts=(1, 1, 1))
LISTED = ColumnProfile(name="s", kind="category", values=("a", "true", "7"), counts=(1, 1, 1, 0))
OPEN = ColumnProfile(name="s", kind="category", values=("a",), counts=(1, 5))
DAYS = ColumnProfile(name="t", kind="time", edges=(1.0,), counts=(1, 1))


@pytest.mark.parametrize(
    ("profile", "values", "codes"),
    [
        (NUMBER, [0.0, 0.1, 9, None, float("nan"), True], [0, 1, 2, MISSING, MISSING, 1]),
        (NUMBER, ["0.5", "word", [1]], [1, MISSING, MISSING]),
        (LISTED, ["a", True, 7.0, "7.0", "new", None, ""], [0, 1, 2, 2, 3, MISSING, MISSING]),
        (OPEN, ["a", "new"], [0, 1]),
        (DAYS, ["1970-01-02T00:00:00Z", "1970-01-09", "soon", None, 5], [0, 1, MISSING, MISSING, MISSING]),
    ],
)
def test_values_find_their_bin(profile, values, codes):
    """Upper edges belong to the bin; what is no such value is missing."""
    assert bin_values(values, profile).tolist() == codes


@pytest.mark.parametrize(
    ("values", "moved"), [([0.5, None] * 200, False), ([None] * 400, True), ([0.5] * 400, True)]
)
def test_a_feature_that_dies_has_moved(values, moved):
    """Missing values are a bin: as many as in training are none of drift's business."""
    profile = ColumnProfile(name="x", kind="number", edges=(0.0, 1.0), counts=(0, 500, 0), missing=500)
    found = measure_drift(bin_values(values, profile), profile)
    assert (found.psi > 0.25) == moved


RANGED = ColumnProfile(name="x", kind="number", edges=(-1.0, 0.0, 1.0), counts=(0, 50, 50, 0))


def test_values_that_training_had_not():
    """Beyond its range, new, or missing where it always had one; where training had many they may be any."""
    some_missing = ColumnProfile(
        name="x", kind="number", edges=(-1.0, 0.0, 1.0), counts=(0, 50, 50, 0), missing=1
    )
    values = [-1.5, -1.0, 0.5, 1.0, 1.01, None]
    for profile, odd in ((RANGED, [0, 4, 5]), (some_missing, [0, 4]), (NUMBER, [5])):
        # -1.0 itself is the lower edge here; a profile's lies just below the least value
        found = unlike_training(bin_values(values, profile), profile)
        assert [i for i in range(6) if found[i] and i != 1] == odd
    assert unlike_training(bin_values(["a", "new", None], LISTED), LISTED).tolist() == [False, True, True]
    assert unlike_training(bin_values(["a", "new", None], OPEN), OPEN).tolist() == [False, False, True]
    never = ColumnProfile(name="x", kind="number", counts=(0,), missing=9)
    assert unlike_training(bin_values([1.0, None], never), never).tolist() == [True, False]
    assert bin_names(LISTED) == ("a", "true", "7", "new", "missing")
    assert bin_names(OPEN) == ("a", "another", "missing")


def test_bins_are_named_by_the_data_s_numbers():
    """The edge below the least value is none of them."""
    profile = profile_column(pa.chunked_array([[0.0, 1.0, 2.0]]), Column(name="x", kind="number"))
    assert bin_names(profile)[:2] == ("below 0", "0 to 0")
    assert bin_names(profile)[-2:] == ("above 2", "missing")


def test_what_is_new_is_drift_as_what_is_missing_is():
    """And is in no bin that the labelled rows of the gate could not have."""
    codes = bin_values(["a"] * 300 + ["new"] * 100, LISTED)
    gone = bin_values(["a"] * 300 + [None] * 100, LISTED)
    new, missing = (measure_drift(some, LISTED) for some in (codes, gone))
    assert (new.psi, new.js, new.q) == (missing.psi, missing.js, missing.q)
    assert (new.missing, new.unlike) == (0.0, 0.25)
    assert (missing.missing, missing.unlike) == (0.25, 0.0)
    assert compare_codes(gone, codes, LISTED).missing_before == 0.25
    wide = measure_drift(bin_values([-7, 0.5, 7, None], RANGED), RANGED)
    assert (wide.missing, wide.unlike) == (0.25, 0.5)
    assert wide.distance is not None
    assert new.distance is None
    assert as_in_training(codes, LISTED).tolist() == gone.tolist()
    assert as_in_training(bin_values([-7, 0.5, 7, None], RANGED), RANGED).tolist() == [1, 2, 2, MISSING]


def test_a_few_numbers_beyond_the_range_are_no_drift():
    """They count among those next to them."""
    values = [-0.5] * 49 + [0.5] * 50 + [7.0]
    inside = [-0.5] * 49 + [0.5] * 51
    found, expected = (measure_drift(bin_values(v, RANGED), RANGED).psi for v in (values, inside))
    assert found == expected


def test_chance_does_not_stand_out_and_a_shift_does():
    """Of forty rows an index is often large by chance; of windows one in twenty misleads."""
    draw = np.random.default_rng(0)
    profiles = [
        ColumnProfile(name=f"x{i}", kind="number", edges=(0.25, 0.5, 0.75), counts=(2500,) * 4)
        for i in range(10)
    ]

    def window(values):
        pairs = zip(values, profiles, strict=True)
        return control_drift([measure_drift(bin_values(v, p), p) for v, p in pairs])

    calm = [window(draw.random((10, 40))) for _ in range(100)]
    assert np.mean([any(d.psi >= 0.1 for d in found) for found in calm]) > 0.5
    assert np.mean([any(d.stands_out for d in found) for found in calm]) <= 0.1
    moved = draw.random((10, 40))
    moved[3] **= 3
    assert [d.column for d in window(moved) if d.stands_out] == ["x3"]
    assert control_drift([]) == ()


def test_few_rows_tell_of_a_feature_that_died():
    """Missing values by an exact test; bins that few rows can fill are taken together until they tell."""
    edges = tuple(np.arange(1, 10) / 10)
    even = ColumnProfile(name="x", kind="number", edges=edges, counts=(250,) * 10)
    constant = ColumnProfile(name="x", kind="number", edges=(0.0,), counts=(2500, 0))
    spread = np.linspace(0, 1, 100).tolist()
    cases = [
        (even, [None] * 40, True),
        (even, [None] * 3, True),
        (even, [0.05] * 12, True),
        (even, [0.05] * 2, False),
        (even, [*spread, *([None] * 10)], True),
        (even, spread, False),
        (constant, [None] * 40, True),
        (constant, [-1.0] * 40, False),
    ]
    for profile, values, tells in cases:
        (found,) = control_drift([measure_drift(bin_values(values, profile), profile)])
        assert found.stands_out == tells


def test_what_was_summed_up_before_stands_out_by_its_index():
    """There is no test's figure to say that it was chance."""
    assert Drift(column="x", psi=0.3, rows=9, missing=0.0).stands_out
