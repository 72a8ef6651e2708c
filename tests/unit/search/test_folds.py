"""Which rows a search fits, scores and never touches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from raywf.core.errors import SearchError
from raywf.core.metrics import METRICS
from raywf.core.records import Column, Snapshot
from raywf.core.settings import GateSettings, SearchSettings
from raywf.search.data import (
    SearchData,
    hashed_share,
    newest_block,
    newest_instant,
    prepare_data,
    with_folds,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIMES = st.lists(st.integers(0, 60), min_size=150, max_size=200)
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def prepare(
    hours: list[int] | None,
    rows: int = 0,
    *,
    task: str = "binary",
    gated: bool = True,
    groups: list[str | None] | None = None,
    maturity_h: int = 0,
    pieces: int = 1,
    **search: object,
) -> SearchData:
    """Lay out rows at the given hours, or so many without a time."""
    rows = len(hours) if hours is not None else rows
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    labels = np.arange(rows) % (len(classes) or rows)
    columns = {
        "x": np.arange(rows, dtype=float),
        "__label": labels.astype(float),
        "__key": np.arange(rows) * 7919,
    }
    if groups is not None:
        columns["__group"] = pa.array(groups, pa.string())
    if hours is not None:
        stamps = [START + hour * HOUR for hour in hours]
        columns["__time"] = pa.array(stamps, pa.timestamp("us", "UTC"))
    snapshot = Snapshot(
        id="s",
        workflow="w",
        uri="",
        rows=rows,
        columns=(Column(name="x", kind="number"),),
        task=task,
        classes=classes,
        label="y",
        has_time=hours is not None,
        window=None,
        as_of=None,
        digest="",
        profile=(),
        sources=(),
        maturity_s=maturity_h * 3600.0,
    )
    settings = SearchSettings(**search)  # type: ignore[arg-type]
    gate = GateSettings(pieces=pieces) if gated else None
    metric = METRICS["rmse" if task == "regression" else "log_loss"]
    return prepare_data(snapshot, pa.table(columns), search=settings, gate=gate, metric=metric)[0]


def ordered(hours: list[int], **search: object) -> SearchData:
    """Lay out rows with times; without enough rows the example does not count."""
    try:
        return prepare(hours, **search)
    except SearchError:
        assume(False)
        raise


@few
@given(TIMES, st.integers(2, 5))
def test_no_fold_touches_the_gate(hours: list[int], folds: int) -> None:
    """The gate's block and the rows of the folds share no row; the gate's are the newest."""
    data = ordered(hours, folds=folds)
    used = np.concatenate([np.concatenate([f.fit, f.score]) for f in data.folds])
    assert not set(used) & set(data.gate)
    assert data.times[data.gate].min() > data.times[data.rest].max()


@few
@given(TIMES, st.integers(1, 5), st.integers(0, 3))
def test_a_gate_in_pieces_leaves_as_many_between_them(hours: list[int], pieces: int, purge: int) -> None:
    """Every other piece of the newest rows is held, the newest of all; others keep their distance from it."""
    data = ordered(sorted(hours), folds=2, pieces=pieces, purge=purge * HOUR)
    held, rest, step = data.times[data.gate], data.times[data.rest], purge * 3_600_000_000
    assert not set(data.gate) & set(data.rest)
    assert held.max() == data.times.max()
    assert len(held) <= 1.5 * 0.15 * len(hours) + max(np.unique(data.times, return_counts=True)[1])
    younger = rest[rest > held.min()]
    if pieces == 1:
        assert len(younger) == 0
    for time in younger:
        assert np.abs(held - time).min() > step


def test_pieces_take_turns() -> None:
    """Of 400 rows an hour apart the gate has 60 in three pieces, and the fits what lies between."""
    data = prepare(list(range(400)), pieces=3, folds=2)
    held = (data.gate - 280) // 20
    assert sorted(set(held.tolist())) == [1, 3, 5]
    assert len(data.gate) == 60
    assert set(range(400)) - set(data.gate.tolist()) == set(data.rest.tolist())


@pytest.mark.parametrize(("hours", "held"), [(1, {399}), (20, {399, 359, 319}), (60, {399, 359})])
def test_pieces_of_few_instants_leave_something_between(hours: int, held: set[int]) -> None:
    """Those of one instant stay together; where nothing is left between, the newest block is held."""
    data = prepare([row // hours * hours for row in range(400)], pieces=4, folds=2)
    assert held <= set(data.gate.tolist())
    assert len(data.gate) <= 100
    if hours == 20:
        assert {379, 339} <= set(data.rest.tolist())


@few
@given(TIMES, st.integers(2, 5), st.integers(0, 10))
def test_fits_lie_before_what_they_score(hours: list[int], folds: int, purge_hours: int) -> None:
    """Every row fitted is older than every row scored by more than the purge, ties included."""
    data = ordered(hours, folds=folds, purge=purge_hours * HOUR)
    gap = purge_hours * 3_600_000_000
    for fold in data.folds:
        assert data.times[fold.fit].max() < data.times[fold.score].min() - gap


@few
@given(TIMES, st.integers(2, 5), st.integers(0, 10))
def test_fits_are_of_mature_rows(hours: list[int], folds: int, age: int) -> None:
    """Fitted are rows as old as the snapshot's maturity when the first scored one came, or five sixths."""
    data = ordered(hours, folds=folds, maturity_h=age)
    for fold in data.folds:
        cut = data.times[fold.score].min()
        before = data.rest[data.times[data.rest] < cut]
        young = np.setdiff1d(before, fold.fit)
        assert data.times[fold.fit].max() < cut
        assert len(young) <= len(before) / 6 or data.times[fold.fit].max() <= cut - age * 3_600_000_000
        assert (data.times[young] > data.times[fold.fit].max()).all()


@few
@given(TIMES, st.integers(0, 10), st.integers(0, 3))
def test_a_proof_is_of_all_rows_before_the_gate(hours: list[int], age: int, purge: int) -> None:
    """As young as those that the champion had when it was made; with a maturity less the purge."""
    data = ordered(hours, folds=2, maturity_h=age, purge=purge * HOUR)
    cut = data.times[data.gate].min() - (purge * 3_600_000_000 if age else 0)
    assert data.rest.tolist() == np.flatnonzero(data.times < cut).tolist()


@few
@given(TIMES, st.integers(2, 5))
def test_each_row_is_scored_once_at_most(hours: list[int], folds: int) -> None:
    """Scored blocks are disjoint and go forward in time; later folds fit no fewer rows."""
    data = ordered(hours, folds=folds)
    scored = np.concatenate([f.score for f in data.folds])
    assert len(scored) == len(set(scored))
    assert (np.diff(data.times[scored]) >= 0).all()
    assert (np.diff([len(f.fit) for f in data.folds]) >= 0).all()


@few
@given(TIMES)
def test_newest_block_is_cut_between_instants(hours: list[int]) -> None:
    """Rows of one instant lie on one side."""
    times = np.asarray(hours)
    block = newest_block(times, GateSettings())
    assert set(times[block]).isdisjoint(times[~block])


def test_newest_block_is_bounded() -> None:
    """At most `max_rows`, where instants differ."""
    assert newest_block(np.arange(10_000), GateSettings(max_rows=300)).sum() == 300


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True), st.integers(0, 100))
def test_hold_out_is_stable(keys: list[int], more: int) -> None:
    """A row stays in or out whatever rows come beside it."""
    alone = hashed_share(np.asarray(keys), 0.15, seed=0)
    beside = hashed_share(np.asarray([*range(more), *keys]), 0.15, seed=0)
    np.testing.assert_array_equal(alone, beside[more:])


def test_hold_out_has_its_share() -> None:
    """Of keys in sequence as many are held out as were asked for."""
    assert hashed_share(np.arange(20_000), 0.15, seed=0).mean() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_without_times_each_row_is_scored_once(task: str) -> None:
    """Shuffled folds part the rows outside the gate's share."""
    data = prepare(None, 400, task=task, folds=4)
    assert sorted(np.concatenate([f.score for f in data.folds])) == sorted(data.rest)
    for fold in data.folds:
        assert sorted([*fold.fit, *fold.score]) == sorted(data.rest)
    assert sorted([*data.rest, *data.gate]) == list(range(400))


def test_without_times_classes_are_spread() -> None:
    """Each fold scores each class in its share."""
    data = prepare(None, 600, task="multiclass", folds=3)
    counts = [np.bincount(data.rows.y[f.score].astype(int), minlength=3) for f in data.folds]
    assert np.ptp(counts, axis=0).max() <= 1


def test_too_few_rows_are_refused() -> None:
    """The message says what to lower."""
    with pytest.raises(SearchError, match=r"30 rows are too few for 3 folds; lower search\.folds"):
        prepare(list(range(30)), folds=3)


def test_of_few_rows_a_fifth_is_held_out() -> None:
    """Where nobody asked for folds and two halves would be too small to fit on."""
    data = prepare(None, 30, gated=False)
    (fold,) = data.folds
    assert (len(fold.fit), len(fold.score)) == (24, 6)


def test_fewer_rows_than_a_fit_needs() -> None:
    """Lowering folds would not help."""
    with pytest.raises(
        SearchError, match="20 rows are too few to fit on 20 of them and score others; give more data"
    ):
        prepare(None, 20, gated=False)


def test_a_single_hold_out_is_a_fifth() -> None:
    """The rows of one fold of five."""
    data = with_folds(prepare(None, 400), SearchSettings(), 1)
    (fold,) = data.folds
    assert len(fold.score) == pytest.approx(len(data.rest) / 5, abs=1)
    assert sorted([*fold.fit, *fold.score]) == sorted(data.rest)


def test_repeats_score_each_row_once_a_shuffle() -> None:
    """Sixteen folds are two shuffles of eight, and the shuffles differ."""
    data = with_folds(prepare(None, 400), SearchSettings(), 16)
    first, second = data.folds[:8], data.folds[8:]
    for half in (first, second):
        assert sorted(np.concatenate([f.score for f in half])) == sorted(data.rest)
    assert any(not np.array_equal(a.score, b.score) for a, b in zip(first, second, strict=True))


def test_without_a_gate_every_row_is_used() -> None:
    """A search alone keeps nothing aside."""
    data = prepare(None, 400, gated=False)
    assert (len(data.gate), len(data.rest)) == (0, 400)


def test_one_instant_is_refused() -> None:
    """Rows that are all of one time have no order to fold by."""
    with pytest.raises(SearchError, match="too few"):
        prepare([5] * 200)


def test_newest_instant() -> None:
    """The greatest event time, or none without times."""
    table = pa.table({"__time": pa.array([START, START + HOUR], pa.timestamp("us", "UTC"))})
    assert newest_instant(table) == START + HOUR
    assert newest_instant(pa.table({"x": [1]})) is None


def test_groups_are_never_parted() -> None:
    """Neither between a fold's fit and its score, nor between the gate and the rest."""
    rng = np.random.default_rng(0)
    names = [None if i % 50 == 0 else f"g{n}" for i, n in enumerate(rng.zipf(1.6, 600) % 60)]
    data = prepare(None, 600, groups=names, folds=5)
    groups = data.rows.groups
    assert groups is not None
    for fold in data.folds:
        assert not set(groups[fold.fit]) & set(groups[fold.score])
    assert not set(groups[data.gate]) & set(groups[data.rest])
    assert len(set(groups.tolist())) == 12 + len({n for n in names if n is not None})
    scored = np.sort(np.concatenate([f.score for f in data.folds]))
    assert (scored == data.rest).all()


def test_fewer_groups_than_folds_are_refused() -> None:
    """In one line that says what to lower."""
    with pytest.raises(SearchError, match=r"groups are too few for 5 folds; lower search\.folds"):
        prepare(None, 300, groups=["a", "b", "c"] * 100, gated=False, folds=5)


@pytest.mark.parametrize(("asked", "folds"), [(1, 1), (2, 2), (5, 5), (8, 6), (24, 6)])
def test_there_are_no_more_folds_than_groups(asked: int, folds: int) -> None:
    """Where a search chose their number; six groups can be parted into six in one way only."""
    groups: list[str | None] = [f"g{i % 6}" for i in range(300)]
    data = prepare(None, 300, groups=groups, gated=False)
    assert len(with_folds(data, SearchSettings(), asked).folds) == folds


def test_shuffles_of_groups_differ() -> None:
    """Though no two groups are of one size; those that come out alike are left out."""
    sizes = [100, 80, 60, 50, 40, 30, 25, 20, 15, 10, 5]
    data = prepare(
        None,
        sum(sizes),
        groups=[f"g{i}" for i, n in enumerate(sizes) for _ in range(n)],
        gated=False,
    )
    scored = [fold.score.tobytes() for fold in with_folds(data, SearchSettings(), 24).folds]
    assert len(scored) == 24
    shuffles = {frozenset(scored[i : i + 8]) for i in (0, 8, 16)}
    assert len(shuffles) == 3
    few = prepare(None, 320, groups=[f"g{i % 8}" for i in range(320)], gated=False, folds=16)
    assert len(few.folds) == 8


@pytest.mark.parametrize("seed", range(5))
def test_a_group_of_most_rows_is_not_held_out(seed: int) -> None:
    """A hold-out is the fifth of the rows that others make up, and it scores no first fold."""
    groups: list[str | None] = ["most"] * 350 + [f"g{i}" for i in range(15) for _ in range(10)]
    data = prepare(None, 500, groups=groups, gated=False, folds=1, seed=seed)
    assert [len(f.score) for f in data.folds] == [100]
    first, *others = with_folds(data, SearchSettings(seed=seed), 3).folds
    assert len(first.score) < 100
    assert max(len(f.score) for f in others) == 350


def test_two_groups_bear_a_hold_out_and_one_does_not() -> None:
    """Nor does the refusal tell of folds that nobody asked for."""
    data = prepare(None, 300, groups=["a", "b", "b"] * 100, gated=False, folds=1)
    assert [len(f.score) for f in data.folds] == [100]
    with pytest.raises(SearchError, match="1 groups are too few to hold some out"):
        prepare(None, 300, groups=["a"] * 300, gated=False, folds=1)
    with pytest.raises(SearchError, match=r"3 groups are too few for 16 folds; lower search\.folds"):
        prepare(None, 300, groups=["a", "b", "c"] * 100, gated=False, folds=16)


def test_balanced_classes_weigh_alike() -> None:
    """And 1 in the mean."""
    data = prepare(None, 301, task="binary", class_weight="balanced")
    weights = data.rows.weights
    assert weights is not None
    assert weights.mean() == pytest.approx(1)
    assert weights[data.rows.y == 0].sum() == pytest.approx(weights[data.rows.y == 1].sum())
