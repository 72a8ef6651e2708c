"""Slices: which rows they hold, what is measured on them, and how often that is said in vain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raywf.core.metrics import METRICS, bounded_loss
from raywf.core.records import Column, ColumnProfile, Snapshot
from raywf.search.explain.cuts import Cut, cut_rows
from raywf.search.explain.heldout import Held
from raywf.search.explain.slices import LEAST_ROWS, score_slices

ROWS = 600
START = datetime(2024, 1, 1, tzinfo=UTC)


def snapshot(*profile: ColumnProfile, has_time: bool = False) -> Snapshot:
    return Snapshot(
        id="s",
        workflow="w",
        uri="",
        rows=ROWS,
        columns=tuple(Column(name=p.name, kind=p.kind) for p in profile),
        task="binary",
        classes=("no", "yes"),
        label="y",
        has_time=has_time,
        window=None,
        as_of=None,
        digest="",
        profile=profile,
        sources=(),
    )


def held(seed: int = 0, *, rows: int = ROWS) -> Held:
    """Return calibrated answers."""
    draw = np.random.default_rng(seed)
    scores = draw.uniform(0.05, 0.95, rows)
    labels = (draw.random(rows) < scores).astype(np.float64)
    return Held(index=np.arange(rows), labels=labels, scores=scores[:, None])


def places(cut: Cut) -> dict[str, list[int]]:
    return {name: np.flatnonzero(cut.places == i).tolist() for i, name in enumerate(cut.names)}


def test_categories_are_cut_by_value() -> None:
    """Values that the profile does not name are others; missing ones are apart."""
    profile = ColumnProfile(name="lane", kind="category", values=("a", "b"), counts=(3, 1, 1))
    table = pa.table({"lane": ["a", "b", None, "a", "z", "a"]})
    (cut,) = cut_rows(snapshot(profile), table)
    assert places(cut) == {"a": [0, 3, 5], "b": [1], "(other)": [4], "(missing)": [2]}


def test_numbers_are_cut_by_the_profile_s_bins() -> None:
    """An edge belongs to the bin below it, as in the profile."""
    profile = ColumnProfile(name="x", kind="number", edges=(1.0, 2.5), counts=(2, 2, 2))
    values = [0.0, 1.0, 1.1, 2.5, 9.0, None] * 100
    (cut,) = cut_rows(snapshot(profile), pa.table({"x": values}))
    assert cut.names == ("<= 1", "(1, 2.5]", "> 2.5", "(missing)")
    assert np.bincount(cut.places).tolist() == [200, 200, 100, 100]


def test_bins_are_joined_where_rows_are_few() -> None:
    """Ten bins of thirty rows would tell nothing."""
    profile = ColumnProfile(name="x", kind="number", edges=tuple(range(1, 10)), counts=(30,) * 10)
    (cut,) = cut_rows(snapshot(profile), pa.table({"x": np.arange(300) % 10 + 0.5}))
    assert cut.names[:3] == ("<= 4", "(4, 8]", "> 8")


def test_times_are_cut_by_day() -> None:
    """The event time in five periods, a feature by its profile's days."""
    stamps = pa.array([START + timedelta(days=i) for i in range(ROWS)], pa.timestamp("us", "UTC"))
    day = (START - datetime(1970, 1, 1, tzinfo=UTC)).days
    profile = ColumnProfile(name="paid", kind="time", edges=(day + 9.0,), counts=(10, 590))
    paid, event = cut_rows(snapshot(profile, has_time=True), pa.table({"paid": stamps, "__time": stamps}))
    assert paid.names == ("<= 2024-01-10", "> 2024-01-10", "(missing)")
    assert np.bincount(paid.places).tolist() == [10, 590]
    assert event.column == "event time"
    assert np.bincount(event.places).tolist() == [120] * 5


def test_figures_are_those_of_the_rows() -> None:
    """Against each slice taken out by hand."""
    rows, third = held(), np.arange(ROWS) % 3
    report = score_slices(rows, [Cut("x", ("a", "b", "c"), third)], metric=METRICS["roc_auc"], scale=None)
    losses = bounded_loss(rows.labels, rows.scores, scale=None)
    for found in report.slices:
        mine = third == "abc".index(found.value)
        assert (found.column, found.rows) == ("x", 200)
        assert found.score == METRICS["roc_auc"].score(rows.labels[mine], rows.scores[mine])
        assert found.loss == pytest.approx(losses[mine].mean())
        assert found.margin == pytest.approx(1.96 * stats.sem(losses[mine]), rel=1e-3)
        assert found.excess == pytest.approx(losses[mine].mean() - losses[~mine].mean())
        assert abs(found.shrunk) <= abs(found.excess)
        assert found.label_mean == pytest.approx(rows.labels[mine].mean())
        assert found.predicted_mean == pytest.approx(rows.scores[mine].mean())
    assert [s.shrunk for s in report.slices] == sorted((s.shrunk for s in report.slices), reverse=True)


def test_rates_are_of_benjamini_and_hochberg() -> None:
    """Over all slices that were looked at, by Welch's statistic."""
    rows = held(1)
    cuts = [Cut(str(i), ("a", "b"), np.random.default_rng(i).integers(0, 2, ROWS)) for i in range(6)]
    found = score_slices(rows, cuts, metric=METRICS["brier"], scale=None).slices
    losses = bounded_loss(rows.labels, rows.scores, scale=None)
    p = {}
    for cut in cuts:
        for place, name in enumerate("ab"):
            mine, rest = losses[cut.places == place], losses[cut.places != place]
            apart = (mine.mean() - rest.mean()) / np.hypot(stats.sem(mine), stats.sem(rest))
            p[cut.column, name] = stats.norm.sf(apart)
    ranked = sorted(p, key=lambda k: p[k])
    for one in found:
        at = ranked.index((one.column, one.value))
        expected = min(len(p) * p[k] / (i + 1) for i, k in enumerate(ranked) if i >= at)
        assert one.q == pytest.approx(min(1, expected))


def test_planted_slice_is_found() -> None:
    """Answers that are upside down on some rows: the worst slice, and off in its mean."""
    rows, bad = held(2), np.arange(ROWS) < 90
    scores = rows.scores.copy()
    scores[bad] = 0.9 - 0.85 * rows.labels[bad, None]
    broken = Held(index=rows.index, labels=rows.labels, scores=scores)
    cuts = [Cut(str(i), ("a", "b"), np.random.default_rng(i).integers(0, 2, ROWS)) for i in range(20)]
    cuts.append(Cut("plan", ("good", "bad"), bad.astype(np.int64)))
    worst, *others = score_slices(broken, cuts, metric=METRICS["roc_auc"], scale=None).slices
    assert (worst.column, worst.value) == ("plan", "bad")
    assert worst.q < 0.001
    assert all(s.q > 0.05 for s in others)


def test_nothing_is_found_where_nothing_is() -> None:
    """Many random slices of calibrated answers: none worse, none off, in nearly every draw."""
    found = []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        cuts = [Cut(str(i), ("a", "b", "c"), draw.integers(0, 3, ROWS)) for i in range(15)]
        report = score_slices(held(seed + 10), cuts, metric=METRICS["brier"], scale=None)
        found.append(any(s.q < 0.05 or s.bias_q < 0.05 for s in report.slices))
    assert sum(found) <= 3


def test_small_slices_are_only_counted() -> None:
    """Too few rows, too few others, or all rows: not looked at."""
    rows, lone = held(), np.zeros(ROWS, dtype=np.int64)
    lone[: LEAST_ROWS - 1] = 1
    cuts = [Cut("x", ("a", "b"), lone), Cut("y", ("all",), np.zeros(ROWS, dtype=np.int64))]
    report = score_slices(rows, cuts, metric=METRICS["brier"], scale=None)
    assert (report.slices, report.too_small) == ((), 1)


def test_slices_of_the_same_rows_are_one() -> None:
    """The second is named beside the first."""
    half = np.arange(ROWS) % 2
    cuts = [Cut("net", ("yes", "no"), half), Cut("mail", ("some", "none"), half)]
    report = score_slices(held(), cuts, metric=METRICS["brier"], scale=None)
    assert {s.value: s.same for s in report.slices} == {"yes": ("mail: some",), "no": ("mail: none",)}


def test_slice_of_one_class_has_no_auc() -> None:
    """Its loss is told all the same."""
    rows = held()
    cut = Cut("y", ("no", "yes"), rows.labels.astype(np.int64))
    report = score_slices(rows, [cut], metric=METRICS["roc_auc"], scale=None)
    assert [s.score for s in report.slices] == [None, None]


def test_values_have_a_scale_and_classes_no_bias() -> None:
    """Errors of a regression are relative to the scale; several classes have no one mean."""
    draw, half = np.random.default_rng(0), np.arange(ROWS) % 2
    labels = draw.normal(size=ROWS)
    values = Held(index=np.arange(ROWS), labels=labels, scores=labels[:, None] + 1 + half[:, None])
    report = score_slices(values, [Cut("x", ("a", "b"), half)], metric=METRICS["mae"], scale=4.0)
    assert {s.value: (s.score, s.loss) for s in report.slices} == {
        "a": (pytest.approx(1), pytest.approx(0.25)),
        "b": (pytest.approx(2), pytest.approx(0.5)),
    }
    classes = Held(
        index=np.arange(ROWS), labels=draw.integers(0, 3, ROWS) * 1.0, scores=draw.dirichlet([1, 1, 1], ROWS)
    )
    report = score_slices(classes, [Cut("x", ("a", "b"), half)], metric=METRICS["log_loss"], scale=None)
    assert [(s.label_mean, s.bias_q) for s in report.slices] == [(None, None)] * 2
