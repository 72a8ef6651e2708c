"""Layout, out-of-fold answers and curves, read again from what a search left."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.errors import SearchError
from raywf.core.metrics import METRICS
from raywf.core.records import Column, Member, Snapshot, Sweep, Trial
from raywf.core.settings import GateSettings, SearchSettings
from raywf.models.families import family
from raywf.models.family import Rows
from raywf.search.choose import Bounds, choose
from raywf.search.data import Fold, SearchData, prepare_data
from raywf.search.explain.blocks import fold_blocks
from raywf.search.explain.curves import learning_curve, search_progress
from raywf.search.explain.heldout import out_of_fold
from raywf.search.folds import TrialPlan, fit_fold, summarise
from raywf.search.layout import keep_layout, lay_out_again
from raywf.search.ledger import FoldResult, Ledger
from raywf.search.portfolio import make_trial

ROWS = 600
METRIC = METRICS["log_loss"]
START = datetime(2024, 1, 1, tzinfo=UTC)
AMPLE = Bounds(row_ms=10.0, left_s=1000.0, slots=2, bag=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger."""
    return Ledger(str(tmp_path), "sweep")


def make_data(*, folds: int = 4) -> SearchData:
    """Return binary rows that a number tells something of."""
    draw, rows = np.random.default_rng(0), np.arange(ROWS)
    X = draw.normal(size=(ROWS, 3)).astype(np.float32)
    y = (X[:, 0] + draw.normal(size=ROWS) > 0).astype(np.float64)
    return SearchData(
        rows=Rows(X, y),
        times=None,
        known=None,
        folds=tuple(Fold(fit=rows[rows % folds != k], score=rows[rows % folds == k]) for k in range(folds)),
        gate=rows[:0],
        rest=rows,
        task="binary",
        n_classes=2,
        sizes=(0, 0, 0),
    )


def make_sweep(data: SearchData, ledger: Ledger, trials: list[Trial]) -> Sweep:
    chosen = choose(data, trials, ledger, metric=METRIC, bounds=AMPLE)
    return Sweep(
        id="sweep",
        snapshot_id="x",
        metric="log_loss",
        greater_is_better=False,
        trials=tuple(trials),
        members=chosen.members,
        score=chosen.score,
        calibrated=chosen.calibration is not None,
        budget_s=1,
        spent_s=1,
        cpu_s=1,
    )


def noisy(data: SearchData, ledger: Ledger, *, seed: int) -> Trial:
    """Keep a trial whose scores are timid and noisy."""
    draw = np.random.default_rng(seed)
    trial, results = make_trial("linear", {"C": 1.0 + seed}), []
    for number, fold in enumerate(data.folds):
        labels = data.rows.y[fold.score]
        scores = np.clip(0.3 + 0.4 * labels + 0.2 * draw.normal(size=len(labels)), 0.02, 0.98)[:, None]
        loss = METRICS["log_loss"].loss(labels, scores)
        results.append(FoldResult(scores=scores.astype(np.float32), loss=loss, rounds=1, seconds=0.5))
        ledger.record_fold(trial.id, number, results[-1])
    return summarise(trial, results, METRICS["log_loss"], "done")


def searched(ledger: Ledger) -> tuple[SearchData, Sweep]:
    data = make_data()
    return data, make_sweep(data, ledger, [noisy(data, ledger, seed=i) for i in range(3)])


def test_out_of_fold_is_what_the_search_scored(ledger: Ledger) -> None:
    """Weights, calibration and all: fold by fold the sweep's own score."""
    data, sweep = searched(ledger)
    held = out_of_fold(data, sweep, ledger)
    assert sweep.calibrated
    assert held.index.tolist() == list(range(ROWS))
    found = [METRICS["log_loss"].score(held.labels[f.score], held.scores[f.score]) for f in data.folds]
    assert np.mean(found) == pytest.approx(sweep.score)


def test_it_is_calibrated_as_the_bundle_is(ledger: Ledger) -> None:
    """By rows that count as in the fits: the sweep's score is of no other calibration."""
    data = make_data()
    weights = np.where(data.rows.y > 0.5, 8.0, 1.0)
    data = dataclasses.replace(data, rows=dataclasses.replace(data.rows, weights=weights / weights.mean()))
    sweep = make_sweep(data, ledger, [noisy(data, ledger, seed=i) for i in range(3)])
    held = out_of_fold(data, sweep, ledger)
    assert sweep.calibrated
    found = [METRICS["log_loss"].score(held.labels[f.score], held.scores[f.score]) for f in data.folds]
    assert np.mean(found) == pytest.approx(sweep.score)


def test_rows_of_several_shuffles_have_their_mean(ledger: Ledger) -> None:
    """Each row once."""
    data = make_data(folds=2)
    data = dataclasses.replace(data, folds=data.folds * 2)
    trial = noisy(data, ledger, seed=0)
    sweep = dataclasses.replace(make_sweep(data, ledger, [trial]), calibrated=False)
    held = out_of_fold(data, sweep, ledger)
    folds = ledger.folds(trial.id, 4)
    assert len(held.index) == ROWS
    mean = (folds[0].scores.astype(float) + folds[2].scores) / 2
    assert held.scores[data.folds[0].score] == pytest.approx(mean)


def test_lost_folds_are_told(ledger: Ledger) -> None:
    """By the trial's name."""
    data, sweep = searched(ledger)
    shutil.rmtree(Path(ledger.root) / "sweeps" / "sweep" / "trials" / sweep.members[0].trial_id)
    with pytest.raises(SearchError, match=f"has 0 of 4 folds of {sweep.members[0].trial_id} left"):
        out_of_fold(data, sweep, ledger)


def test_progress_ends_with_all_trials(ledger: Ledger) -> None:
    """Seconds add up, the best never gets worse, the ensemble is at least as good."""
    data, sweep = searched(ledger)
    points = search_progress(data, sweep, ledger, metric=METRIC)
    assert [p.trials for p in points] == [1, 2, 3]
    assert [p.seconds for p in points] == pytest.approx([2, 4, 6])
    assert points[0].best == pytest.approx(np.mean(sweep.trials[0].fold_losses), rel=1e-5)
    assert points[-1].best == pytest.approx(min(np.mean(t.fold_losses) for t in sweep.trials), rel=1e-5)
    assert all(p.ensemble <= p.best for p in points)


def test_learning_curve_ends_with_all_rows() -> None:
    """An eighth, a quarter, half and all of the first fold's; the same for a seed."""
    data = make_data()
    member = Member(trial_id="t", family="linear", params={}, rounds=0, weight=1.0)
    points = learning_curve(data, member, family(member.family), metric=METRICS["roc_auc"], seed=0, threads=1)
    again = learning_curve(data, member, family(member.family), metric=METRICS["roc_auc"], seed=0, threads=1)
    assert [p.rows for p in points] == [57, 113, 225, 450]
    assert all(0.6 < p.score < 0.95 for p in points)
    assert [p.score for p in points] == [p.score for p in again]


def test_fold_models_answer_what_they_had_not_seen(ledger: Ledger) -> None:
    """The kept models' answers are the ledger's scores; a member without any lowers the share."""
    data = make_data(folds=2)
    plan = TrialPlan(
        metric=METRIC,
        threads=1,
        deadline=2e9,
        last_moment=2e9,
        seed=0,
        ledger=ledger,
        keep_models=True,
    )
    kept, other = make_trial("lightgbm", {"learning_rate": 0.1}), noisy(data, ledger, seed=1)
    results = [fit_fold(kept, data, plan, n, deadline=2e9) for n in range(2)]
    trial = summarise(kept, results, METRICS["log_loss"], "done")
    members = tuple(
        Member(trial_id=t.id, family=t.family, params=t.params, rounds=1, weight=w)
        for t, w in ((trial, 0.75), (other, 0.25))
    )
    sweep = dataclasses.replace(make_sweep(data, ledger, [trial, other]), members=members)
    blocks, share = fold_blocks(data, sweep, ledger, most=10_000, seed=0)
    assert share == 0.75
    for block, result in zip(blocks, results, strict=True):
        assert block.predict(block.rows.X) == pytest.approx(result.scores, abs=1e-6)


def make_table(*, timed: bool) -> tuple[Snapshot, pa.Table]:
    draw = np.random.default_rng(0)
    table = pa.table(
        {
            "x": draw.normal(size=ROWS),
            "__label": draw.integers(0, 2, ROWS).astype(np.float64),
            "__key": np.arange(ROWS) * 7919,
            "__time": pa.array([START + timedelta(hours=i) for i in range(ROWS)], pa.timestamp("us", "UTC")),
        }
    )
    made = Snapshot(
        id="x",
        workflow="w",
        uri="",
        rows=ROWS,
        columns=(Column(name="x", kind="number"),),
        task="binary",
        classes=("no", "yes"),
        label="y",
        has_time=timed,
        window=None,
        as_of=None,
        digest="",
        profile=(),
        sources=(),
    )
    return made, table


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("gate", [None, GateSettings(newest=0.3)])
@pytest.mark.parametrize("folds", [2, 3, 16])
def test_layout_comes_back(timed: bool, gate: GateSettings | None, folds: int, ledger: Ledger) -> None:
    """From the ledger and the snapshot alone."""
    made, table = make_table(timed=timed)
    search = SearchSettings(seed=5, folds=folds, purge=timedelta(hours=2))
    data, _ = prepare_data(made, table, search=search, gate=gate, metric=METRIC)
    keep_layout(ledger, data, search, gate)
    again = lay_out_again(ledger, made, table, metric=METRIC)
    assert (again.gate == data.gate).all()
    for one, other in zip(again.folds, data.folds, strict=True):
        assert (one.fit == other.fit).all()
        assert (one.score == other.score).all()


@pytest.mark.parametrize("asked", ["none", "balanced"])
def test_rows_count_as_they_did(asked: Literal["none", "balanced"], ledger: Ledger) -> None:
    """Whatever the settings are by now; a layout of before has no weights of classes."""
    made, table = make_table(timed=False)
    search = SearchSettings(class_weight=asked)
    data, _ = prepare_data(made, table, search=search, gate=None, metric=METRIC)
    keep_layout(ledger, data, search, None)
    again = lay_out_again(ledger, made, table, metric=METRIC).rows.weights
    assert (again is None) == (asked == "none")
    assert again is None or (again == data.rows.weights).all()
    kept = ledger.settled("layout") or {}
    ledger.keep("layout", {name: value for name, value in kept.items() if name != "class_weight"})
    assert lay_out_again(ledger, made, table, metric=METRIC).rows.weights is None


def test_other_rows_are_refused(ledger: Ledger) -> None:
    """A layout that does not come out as it was, and one that was never kept."""
    made, table = make_table(timed=False)
    with pytest.raises(SearchError, match="did not keep which rows"):
        lay_out_again(ledger, made, table, metric=METRIC)
    search = SearchSettings(seed=5)
    data, _ = prepare_data(made, table, search=search, gate=None, metric=METRIC)
    keep_layout(ledger, data, search, None)
    labels = pa.array(1 - table.column("__label").to_numpy())
    changed = table.set_column(table.schema.get_field_index("__label"), "__label", labels)
    with pytest.raises(SearchError, match="come out otherwise"):
        lay_out_again(ledger, made, changed, metric=METRIC)
