"""Content hashes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.snapshots.digest import add_sums, content_sums, row_hashes

_rows = st.lists(
    st.tuples(st.none() | st.floats(allow_nan=False), st.none() | st.text(max_size=3)),
    min_size=1,
    max_size=20,
)


def table(rows):
    """A table of a number and a text."""
    return pa.table(
        {"x": pa.array([r[0] for r in rows], pa.float64()), "s": pa.array([r[1] for r in rows], pa.string())}
    )


@settings(max_examples=100, deadline=None)
@given(_rows, st.randoms(use_true_random=False), st.integers(0, 20))
def test_content_does_not_depend_on_order_or_blocks(rows, random, cut):
    """Shuffled and cut in two, the sums are the same."""
    shuffled = random.sample(rows, len(rows))
    parts = [content_sums(table(shuffled[:cut])), content_sums(table(shuffled[cut:]))]
    assert add_sums(parts) == content_sums(table(rows))


def test_a_changed_value_changes_the_sums():
    """Also a missing one against zero or empty text."""
    variants = [(1.0, "a"), (1.0, "b"), (2.0, "a"), (None, "a"), (0.0, "a"), (1.0, None), (1.0, "")]
    assert len({content_sums(table([row])) for row in variants}) == len(variants)


def test_rows_repeated_are_counted():
    """Twice the same row is not the same as none of it."""
    assert content_sums(table([(1.0, "a")] * 2)) != content_sums(table([(1.0, "a")] * 4))


def test_row_hashes_spread():
    """A hundred thousand rows have as many hashes."""
    assert len(np.unique(row_hashes(pa.table({"i": np.arange(100_000)})))) == 100_000
