"""A sketch of parts is that of the whole: exactly for few distinct values, else to within its own bound."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raywf.core.records import Column
from raywf.core.sketch import CATEGORIES, POINTS, CategorySketch, Merger, NumberSketch, merge_sketches
from raywf.snapshots.profile import profile_column
from raywf.snapshots.sketch import find_kind, sketch_column

NUMBER, TEXT, TIME = (Column(name="x", kind=kind) for kind in ("number", "category", "time"))


def numbers(values: object, bounds: tuple[float, float] | None = None) -> NumberSketch:
    made = sketch_column(pa.chunked_array([pa.array(values)]), NUMBER, bounds=bounds)
    assert isinstance(made, NumberSketch)
    return made


def texts(values: object) -> CategorySketch:
    made = sketch_column(pa.chunked_array([pa.array(values, pa.string())]), TEXT)
    assert isinstance(made, CategorySketch)
    return made


def facts(sketch: NumberSketch | CategorySketch) -> tuple[object, ...]:
    """Return all that a sketch holds, to be compared."""
    names = (name for name in type(sketch).__slots__)
    found = ((name, getattr(sketch, name)) for name in names)
    return tuple((n, v.tolist() if isinstance(v, np.ndarray) else repr(v)) for n, v in found)


def rank_gap(sketch: NumberSketch, values: np.ndarray) -> float:
    """Return by how much a share of rows read off the points is wrong at most, anywhere."""
    ordered = np.sort(values)
    at = np.union1d(ordered, sketch.points)
    true = np.searchsorted(ordered, at, side="right") / len(values)
    below = np.concatenate([[0], np.cumsum(sketch.counts)])
    read = below[np.searchsorted(sketch.points, at, side="right")] / len(values)
    return float(np.abs(true - read).max())


@example([[0.0], [-0.0]])
@given(st.lists(st.lists(st.none() | st.floats(-5, 5) | st.sampled_from([np.nan, np.inf])), min_size=1))
def test_parts_of_few_distinct_numbers(parts: list[list[float | None]]) -> None:
    """Merged in any grouping, parts give the whole's sketch, to the last row."""
    whole = numbers(pa.array([v for part in parts for v in part], pa.float64()), (-1.0, 2.0))
    merged = merge_sketches([numbers(pa.array(part, pa.float64()), (-1.0, 2.0)) for part in parts])
    assert facts(merged) == facts(whole)


@given(st.lists(st.lists(st.none() | st.sampled_from(["a", "b", "c", "", " "])), min_size=1))
def test_parts_of_few_categories(parts: list[list[str | None]]) -> None:
    """Blank text is missing, and parts give the whole's sketch."""
    merged = merge_sketches([texts(part) for part in parts])
    assert facts(merged) == facts(texts([v for part in parts for v in part]))


@pytest.mark.parametrize("parts", [2, 7, 100])
def test_many_distinct_numbers_keep_their_ranks(parts: int) -> None:
    """The error that a sketch claims holds, after one merge and after several levels, and is small."""
    rng = np.random.default_rng(parts)
    pieces = [rng.standard_t(2, size=rng.integers(1_000, 9_000)) + i / 50 for i in range(parts)]
    merger = Merger()
    for piece in pieces:
        merger.add(numbers(piece))
    made, whole = merger.merged(), np.concatenate(pieces)
    assert isinstance(made, NumberSketch)
    assert len(made.points) <= POINTS
    assert made.counts.sum() == len(whole) == made.rows
    assert (made.low, made.high) == (whole.min(), whole.max())
    assert rank_gap(made, whole) <= made.rank_error + 2 / len(whole) * parts
    assert made.rank_error <= 0.003


def test_a_value_of_many_rows_keeps_them() -> None:
    """A third of the rows at 0 stay a third, though all other values differ."""
    values = np.where(np.arange(30_000) % 3 == 0, 0.0, np.random.default_rng(1).normal(size=30_000))
    made = numbers(values)
    assert made.counts[made.points == 0].sum() == pytest.approx(10_000, abs=30_000 / POINTS)


def test_rows_beyond_the_bounds_are_counted() -> None:
    """What lies on a bound is within; infinite and missing values are neither."""
    made = merge_sketches(
        [numbers([1.0, 2.0, None, np.inf], (1.0, 2.0)), numbers([0.5, 2.5, 3.0], (1.0, 2.0))]
    )
    assert isinstance(made, NumberSketch)
    assert (made.outside, made.missing, made.rows) == ((1, 2), 2, 7)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint16(), pa.float32(), pa.decimal128(6, 2)])
def test_every_type_of_number(kind: pa.DataType) -> None:
    """Types differ, sketches do not."""
    values = pa.chunked_array([pa.array([3.0, 1.0, None, 2.0, 2.0]).cast(kind)])
    assert facts(sketch_column(values, NUMBER)) == facts(numbers([3.0, 1.0, None, 2.0, 2.0]))


def test_dictionaries_and_flags_are_categories() -> None:
    """A dictionary's unused values are not there, and two chunks' dictionaries are one."""
    chunks = [pa.array(["b", "a"]).dictionary_encode(), pa.array(["c", "a", None]).dictionary_encode()]
    coded = pa.chunked_array([chunks[0], chunks[1].slice(1)])
    made = sketch_column(coded, TEXT)
    assert facts(made) == facts(texts(["b", "a", "a", None]))
    flags = sketch_column(pa.chunked_array([pa.array([True, False, True])]), TEXT)
    assert facts(flags) == facts(texts(["true", "false", "true"]))


def test_too_many_categories_are_bounded() -> None:
    """The commonest stay, with counts that lack at most what is told."""
    rng = np.random.default_rng(0)
    drawn = [rng.zipf(1.3, 20_000).clip(max=50_000) for _ in range(5)]
    made = merge_sketches([texts([str(v) for v in part]) for part in drawn])
    assert isinstance(made, CategorySketch)
    values, counts = np.unique(np.concatenate(drawn), return_counts=True)
    true = dict(zip(map(str, values), counts.tolist(), strict=True))
    assert len(made.values) == CATEGORIES
    assert made.counts.sum() + made.other == 100_000
    assert all(0 <= true[v] - c <= made.floor for v, c in zip(made.values, made.counts, strict=True))
    assert made.values[:3] == tuple(sorted(true, key=lambda v: -true[v])[:3])


def test_instants_are_days() -> None:
    """Noon of the second day is 1.5, of dates, of instants and of text."""
    day = pa.array([0, 1], pa.int32()).cast(pa.date32())
    assert sketch_column(pa.chunked_array([day]), TIME).points.tolist() == [0.0, 1.0]
    text = pa.chunked_array([pa.array(["1970-01-02T12:00:00Z", "soon"])])
    made = sketch_column(text, TIME)
    assert (made.points.tolist(), made.missing) == ([1.5], 1)


@pytest.mark.parametrize("rows", [50, 700])
def test_the_profile_is_that_of_snapshots(rows: int) -> None:
    """A sketch of few rows gives the very bins that a snapshot keeps, within their range."""
    values = pa.chunked_array([pa.array(np.random.default_rng(2).normal(size=rows).round(2))])
    made, kept = sketch_column(values, NUMBER).profile(), profile_column(values, NUMBER)
    assert (made.edges, made.counts) == (kept.edges[1:-1], kept.counts[1:-1])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", ""], "number"),
        (["true", "False"], "category"),
        (["2013-01-31", "2013-02-01T05:00:00Z"], "time"),
        (["a", "1"], "category"),
        ([1, 2], "number"),
        ([True], "category"),
        ([[1]], None),
    ],
)
def test_what_a_column_holds(values: list[object], kind: str | None) -> None:
    """Text is looked at, other types speak for themselves."""
    assert find_kind(pa.chunked_array([pa.array(values)])) == kind
