"""The index of keys: as a dictionary would have it, whatever was added and dropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.monitor.rows import Rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=40), st.integers(0, 57))
def test_rows_are_those_of_a_dictionary(steps, shift):
    """Keys come, go and come again; rows are used again by others."""
    table, known = Rows(), {}
    for drop, add in steps:
        gone = list(known)[:drop]
        table.drop(np.array([known.pop(key) for key in gone], dtype=np.int64))
        drawn = (1 + np.random.default_rng(add).integers(0, 90, add).astype(np.uint64)) << np.uint64(shift)
        keys = np.unique([key for key in drawn if int(key) not in known]).astype(np.uint64)
        known |= dict(zip(keys.tolist(), table.add(keys).tolist(), strict=True))
        asked = np.arange(1, 100, dtype=np.uint64) << np.uint64(shift)
        assert table.find(asked).tolist() == [known.get(int(key), -1) for key in asked]


@pytest.mark.parametrize("count", [0, 1, 100_000])
def test_many_keys_at_once(count):
    """All are found, and nothing else."""
    table = Rows()
    keys = np.random.default_rng(0).permutation(2 * count).astype(np.uint64)[:count] * np.uint64(
        2**40
    ) + np.uint64(1)
    rows = table.add(keys)
    assert (table.find(keys) == rows).all()
    assert (table.find(keys + np.uint64(1)) == -1).all()
