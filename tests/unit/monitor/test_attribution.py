"""What a change of the loss comes from: the column that moved, the slice that got worse, or everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.attribution import Attribution
from raywf.core.records import ColumnProfile
from raywf.monitor.attribution import BinLosses, add_up, attribute, bin_losses
from raywf.monitor.drift import bin_names, bin_values

PROFILE = (
    ColumnProfile(name="hour", kind="number", edges=(6.0, 12.0, 18.0), counts=(1, 1, 1, 1)),
    ColumnProfile(name="origin", kind="category", values=("EWR", "JFK", "LGA"), counts=(1, 1, 1, 0)),
)


def draw(rows: int, seed: int, *, night: float = 0.25, worse: float = 0, whole: float = 0) -> BinLosses:
    """Return losses by bin: nights lose more; JFK and all may lose more than they did."""
    source = np.random.default_rng(seed)
    hour = np.where(source.random(rows) < night, source.uniform(18.5, 24, rows), source.uniform(0, 18, rows))
    origin = source.choice(["EWR", "JFK", "LGA"], rows)
    middle = 0.2 + 0.2 * (hour > 18) + worse * (origin == "JFK") + whole
    losses = np.clip(source.normal(middle, 0.1), 0, 1)
    return by_bin(hour.tolist(), origin.tolist(), losses)


def by_bin(hour: list[float | None], origin: list[str | None], losses: np.ndarray) -> BinLosses:
    codes = [bin_values(values, one) for values, one in zip((hour, origin), PROFILE, strict=True)]
    return bin_losses(np.array(codes).T, losses, PROFILE)


def compare(before: BinLosses, after: BinLosses) -> Attribution:
    found = attribute(before, after, PROFILE)
    assert found is not None
    return found


def standing_out(found: Attribution) -> tuple[list[str], list[tuple[str, str]]]:
    shifts = [s.column for s in found.shifts if s.q < 0.01]
    return shifts, [(s.column, s.value) for s in found.slices if s.q < 0.01 and s.excess > 0]


def test_a_column_that_moved_explains_the_change() -> None:
    """More nights, and nothing else: the column's mix accounts for all of it, and no slice got worse."""
    found = compare(draw(5000, 1), draw(5000, 2, night=0.6))
    assert standing_out(found) == (["hour"], [])
    assert found.shifts[0].change == pytest.approx(found.change, abs=0.01)
    assert found.shifts[0].change == pytest.approx(0.35 * 0.2, abs=3 * found.shifts[0].error)
    assert "hour moved" in found.told()[1]


def test_a_slice_that_got_worse_is_named() -> None:
    """And what it adds to the whole."""
    found = compare(draw(5000, 1), draw(5000, 2, worse=0.15))
    shifts, slices = standing_out(found)
    assert shifts == []
    assert slices == [("origin", "JFK")]
    assert found.slices[0].value == "JFK"
    assert found.slices[0].change == pytest.approx(found.change, abs=0.01)
    assert found.slices[0].excess == pytest.approx(0.15, abs=0.02)
    assert "where origin is JFK it rose from" in found.told()[1]


def test_what_rose_everywhere_is_told_so() -> None:
    """As where labels come to mean something else."""
    found = compare(draw(5000, 1), draw(5000, 2, whole=0.1))
    assert standing_out(found) == ([], [])
    assert found.told()[1].startswith("it rose alike everywhere")


def test_what_moved_and_does_not_matter_is_no_cause() -> None:
    """An airport that the rows come from alone by now, of which few were known, explains no change."""

    def shifted(seed: int) -> bool:
        source = np.random.default_rng(seed)
        hours = source.uniform(0, 18, 2000).tolist()
        losses = np.clip(source.normal(0.3, 0.2, 2000), 0, 1)
        before = source.choice(["EWR", "JFK", "LGA"], 2000, p=[0.49, 0.49, 0.02]).tolist()
        found = compare(by_bin(hours, before, losses), draw_alone(source))
        return any(s.column == "origin" and s.q < 0.05 for s in found.shifts)

    def draw_alone(source: np.random.Generator) -> BinLosses:
        losses = np.clip(source.normal(0.3, 0.2, 2000), 0, 1)
        return by_bin(source.uniform(0, 18, 2000).tolist(), ["LGA"] * 2000, losses)

    assert sum(shifted(seed) for seed in range(100)) <= 10


def test_nothing_is_found_where_nothing_changed() -> None:
    """In at most a few of a hundred pairs of draws."""
    wrong = sum(standing_out(compare(draw(800, 2 * i), draw(800, 2 * i + 1))) != ([], []) for i in range(100))
    assert wrong <= 5


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_parts_add_up_to_the_whole(seed: int, parts: int) -> None:
    """Whichever way the rows are cut."""
    source = np.random.default_rng(seed)
    rows = 40
    hour: list[float | None] = [None if v < 2 else float(v) for v in source.uniform(0, 24, rows)]
    origin: list[str | None] = [*source.choice(["EWR", "JFK", "elsewhere"], rows - 1), None]
    losses = source.random(rows)
    cuts = np.array_split(np.arange(rows), parts)
    split = [by_bin([hour[i] for i in c], [origin[i] for i in c], losses[c]) for c in cuts]
    whole = by_bin(hour, origin, losses)
    found = add_up(split)
    assert found is not None
    assert found.rows == whole.rows
    for ours, theirs in zip(found.sums + found.squares, whole.sums + whole.squares, strict=True):
        assert ours == pytest.approx(theirs)
    assert [sum(column) for column in whole.rows] == [rows, rows]
    assert [len(column) for column in whole.rows] == [len(bin_names(one)) for one in PROFILE]


def test_the_mix_and_the_bins_make_the_change() -> None:
    """Of any column: what its mix explains and what its bins lost more come to the whole."""
    before, after = draw(3000, 5, night=0.2), draw(2000, 6, night=0.5, worse=0.1)
    found = compare(before, after)
    for at, one in enumerate(PROFILE):
        new, old = np.array(after.rows[at]), np.array(before.rows[at])
        rises = [
            (new[i] / new.sum()) * (after.sums[at][i] / new[i] - before.sums[at][i] / old[i])
            for i in np.flatnonzero((new > 0) & (old > 0))
        ]
        shift = next(s for s in found.shifts if s.column == one.name)
        assert shift.change + sum(rises) == pytest.approx(found.change, abs=1e-9)


def test_no_rows_no_attribution() -> None:
    """At either time; nor of no parts."""
    some, none = draw(50, 1), by_bin([], [], np.zeros(0))
    assert attribute(some, none, PROFILE) is None
    assert attribute(none, some, PROFILE) is None
    assert add_up([]) is None
    few = compare(draw(25, 1), draw(25, 2))
    assert few.slices == ()
