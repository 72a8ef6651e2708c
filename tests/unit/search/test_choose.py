"""Members, their weights and how each is made, within the time for a row and for fits."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from raywf.core.errors import SearchError
from raywf.core.metrics import METRICS
from raywf.core.records import Trial
from raywf.models.family import Rows
from raywf.search.budget import WORKER_S
from raywf.search.choose import Bounds, Chosen, Former, choose, chosen_fits_s, fits_to_come_s, in_turn_s
from raywf.search.data import Fold, SearchData
from raywf.search.folds import summarise
from raywf.search.foresee import LastFits
from raywf.search.ledger import FoldResult, Ledger
from raywf.search.portfolio import make_trial

ROWS, FOLDS = 400, 4
AMPLE = Bounds(row_ms=10.0, left_s=1000.0, slots=2, bag=True)


@pytest.fixture
def data() -> SearchData:
    """Binary rows in four folds."""
    rows = np.arange(ROWS)
    return SearchData(
        rows=Rows(np.zeros((ROWS, 3), np.float32), (rows // 2 % 2).astype(np.float64)),
        times=None,
        known=None,
        folds=tuple(Fold(fit=rows[rows % FOLDS != k], score=rows[rows % FOLDS == k]) for k in range(FOLDS)),
        gate=rows[:0],
        rest=rows,
        task="binary",
        n_classes=2,
        sizes=(0, 0, 0),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger."""
    return Ledger(str(tmp_path), "sweep")


def run(data: SearchData, ledger: Ledger, family: str, *, seed: int, row_s: float, seconds: float) -> Trial:
    """Keep a finished trial whose scores are the labels with noise."""
    draw = np.random.default_rng(seed)
    trial, results = make_trial(family, {"learning_rate": 0.05 + seed / 1000}), []
    for number, fold in enumerate(data.folds):
        labels = data.rows.y[fold.score]
        scores = np.clip(0.25 + 0.5 * labels + 0.2 * draw.normal(size=len(labels)), 0.02, 0.98)
        loss = METRICS["log_loss"].loss(labels, scores[:, None])
        result = FoldResult(
            scores=scores[:, None].astype(np.float32), loss=loss, rounds=10, seconds=seconds, row_s=row_s
        )
        ledger.record_fold(trial.id, number, result)
        results.append(result)
    return summarise(trial, results, METRICS["log_loss"], "done")


def three(data: SearchData, ledger: Ledger, *, row_s: float = 2e-5, seconds: float = 1) -> list[Trial]:
    """Return two kinds of trees and a linear trial, alike in quality and with errors of their own."""
    kinds = enumerate(("lightgbm", "xgboost", "linear"))
    return [run(data, ledger, f, seed=i, row_s=row_s, seconds=seconds) for i, f in kinds]


def pick(data: SearchData, ledger: Ledger, trials: list[Trial], bounds: Bounds) -> Chosen:
    return choose(data, trials, ledger, metric=METRICS["log_loss"], bounds=bounds)


@pytest.mark.parametrize(("row_ms", "again"), [(10.0, 1), (0.107, 3)])
def test_the_fits_to_come_are_foreseen(data: SearchData, ledger: Ledger, row_ms: float, again: int) -> None:
    """Folds' models are merged in no time, unless the time for a row has room for one model of each only."""
    found = fits_to_come_s(three(data, ledger), data, row_ms=row_ms, slots=2, bag=True)
    assert found == pytest.approx(max(1, again / 2) * 4 / 3)  # a fold took a second; two run at a time


def test_long_fits_are_foreseen_by_the_choice(data: SearchData, ledger: Ledger) -> None:
    """The best trial may not become a member: one that takes all the time for a row."""
    trials = three(data, ledger, row_s=1e-5)
    slow = run(data, ledger, "torch", seed=9, row_s=6e-5, seconds=4000)
    slow = dataclasses.replace(slow, fold_losses=tuple(0.9 * x for x in trials[0].fold_losses))
    bounds = dataclasses.replace(AMPLE, row_ms=0.107)
    until = time.time() + 1000
    foreseen = LastFits(data=data, ledger=ledger, metric=METRICS["log_loss"], closing=until, bounds=bounds)
    chosen = pick(data, ledger, [*trials, slow], bounds)
    assert slow.id not in {m.trial_id for m in chosen.members}
    found = chosen_fits_s(chosen, trials, data, slots=2)
    assert found < 10
    assert foreseen.seconds([*trials, slow]) == pytest.approx(found + WORKER_S, abs=0.5)
    here = dataclasses.replace(foreseen, may_be_here=True)
    assert here.seconds([*trials, slow]) == pytest.approx(found, abs=0.5)
    assert fits_to_come_s([*trials, slow], data, row_ms=0.107, slots=2, bag=True) > 1000
    assert foreseen.seconds(trials) < 10  # short ones need no choice
    slower = dataclasses.replace(slow, row_us=80.0)  # no member by itself, which needs no choice either
    assert fits_to_come_s([*trials, slower], data, row_ms=0.107, slots=2, bag=True) < 10


def test_with_time_to_spare_all_folds_answer(data: SearchData, ledger: Ledger) -> None:
    """Trees are merged of every fold's model; a linear member is fitted again."""
    chosen = pick(data, ledger, three(data, ledger), AMPLE)
    assert {m.family: m.folds for m in chosen.members} == {"lightgbm": 4, "xgboost": 4, "linear": 0}
    assert sum(m.weight for m in chosen.members) == pytest.approx(1)
    weights = [m.weight for m in chosen.members]
    assert weights == sorted(weights, reverse=True)


def test_little_time_for_a_row_means_fewer_folds(data: SearchData, ledger: Ledger) -> None:
    """As many as fit; below two the member is fitted again."""
    trials = three(data, ledger, row_s=5e-5)
    folds = [
        max(m.folds for m in pick(data, ledger, trials, dataclasses.replace(AMPLE, row_ms=ms)).members)
        for ms in (0.62, 0.37, 0.244)
    ]
    assert folds[0] == 4
    assert 2 <= folds[1] < 4
    assert folds[2] == 0


def test_too_slow_members_are_dropped(data: SearchData, ledger: Ledger) -> None:
    """Down to the heaviest, which stays however slow it is."""
    trials = three(data, ledger, row_s=1e-3)
    assert len(pick(data, ledger, trials, dataclasses.replace(AMPLE, row_ms=2.62)).members) == 2
    assert len(pick(data, ledger, trials, dataclasses.replace(AMPLE, row_ms=0.1)).members) == 1


def test_what_is_too_slow_by_itself_is_no_member(data: SearchData, ledger: Ledger) -> None:
    """However good it is, unless there is nothing else."""
    trials = three(data, ledger)
    slow = run(data, ledger, "extratrees", seed=9, row_s=1e-3, seconds=1)
    slow = dataclasses.replace(slow, fold_losses=tuple(0.5 * x for x in trials[0].fold_losses))
    bounds = dataclasses.replace(AMPLE, row_ms=0.3)
    chosen = pick(data, ledger, [slow, *trials], bounds)
    assert slow.id not in {m.trial_id for m in chosen.members}
    assert chosen.passed_over == (slow.id,)
    alone = pick(data, ledger, [slow], bounds)
    assert [m.trial_id for m in alone.members] == [slow.id]
    assert alone.passed_over == ()


def test_many_columns_leave_no_time_for_a_row_to_choose_by(data: SearchData, ledger: Ledger) -> None:
    """The encoder alone takes more than there is: then what is quick is no better for it."""
    wide = dataclasses.replace(data, rows=dataclasses.replace(data.rows, X=np.zeros((ROWS, 900), np.float32)))
    trials = [
        run(wide, ledger, family, seed=i, row_s=row_s, seconds=1)
        for i, (family, row_s) in enumerate((("linear", 1e-6), ("lightgbm", 3e-5)))
    ]
    assert pick(wide, ledger, trials, dataclasses.replace(AMPLE, row_ms=0.3)).passed_over == ()


def test_a_former_member_is_a_candidate_however_many_are_better(data: SearchData, ledger: Ledger) -> None:
    """Few rows tell few trials apart; it was chosen by others."""
    former = run(data, ledger, "linear", seed=99, row_s=2e-5, seconds=1)
    worse = dataclasses.replace(former, fold_losses=tuple(3 * loss for loss in former.fold_losses))
    others = [run(data, ledger, "lightgbm", seed=i, row_s=2e-5, seconds=1) for i in range(12)]

    def names(prior: Former | None) -> set[str]:
        found = choose(data, [*others, worse], ledger, metric=METRICS["log_loss"], bounds=AMPLE, former=prior)
        return {m.trial_id for m in found.members}

    assert worse.id not in names(None)
    assert worse.id in names(Former({worse.id: 1.0}, stay=False))


def test_what_cannot_be_fitted_again_is_given_up_alone(data: SearchData, ledger: Ledger) -> None:
    """Lighter members that are made of folds' models stay."""
    trials, late = three(data, ledger), dataclasses.replace(AMPLE, left_s=0.0)
    assert {m.family for m in pick(data, ledger, trials, late).members} == {"lightgbm", "xgboost"}


@pytest.mark.parametrize(("away", "stays"), [(frozenset[str](), True), (frozenset({"linear"}), False)])
def test_a_quick_fit_needs_no_worker(
    data: SearchData, ledger: Ledger, away: frozenset[str], stays: bool
) -> None:
    """Where the search's own process may do it, there is time for it without a worker's start."""
    late = dataclasses.replace(AMPLE, left_s=0.0, here_s=WORKER_S, away=away)
    members = pick(data, ledger, three(data, ledger), late).members
    assert ("linear" in {m.family for m in members}) == stays


def test_no_time_for_fits_drops_members(data: SearchData, ledger: Ledger) -> None:
    """Where every member has to be fitted again."""
    trials = three(data, ledger, seconds=40)
    hasty = dataclasses.replace(AMPLE, bag=False, left_s=20.0)
    chosen = pick(data, ledger, trials, hasty)
    assert [m.folds for m in chosen.members] == [0]


def test_a_fit_that_was_cut_short_is_taken_for_want_of_others_only(data: SearchData, ledger: Ledger) -> None:
    """A fold's model stands in for it, or nothing, where folds' models are not kept."""
    trials = three(data, ledger)
    slow = dataclasses.replace(AMPLE, row_ms=0.107)
    before = pick(data, ledger, trials, slow).members
    assert [m.folds for m in before] == [0, 0, 0]
    trees = frozenset(t.id for t in trials if t.family != "linear")
    after = pick(data, ledger, trials, dataclasses.replace(slow, cut=trees)).members
    assert {m.trial_id: m.folds for m in after} == {t.id: int(t.id in trees) for t in trials}
    assert [m.weight for m in after] == sorted((m.weight for m in after), reverse=True)
    kept = pick(data, ledger, trials, dataclasses.replace(slow, cut=trees, bag=False)).members
    assert [m.family for m in kept] == ["linear"]
    everything = frozenset(t.id for t in trials)
    (last,) = pick(data, ledger, trials, dataclasses.replace(slow, cut=everything, bag=False)).members
    assert (last.trial_id, last.folds) == (before[0].trial_id, 0)


def test_unfinished_trials_are_left_out(data: SearchData, ledger: Ledger) -> None:
    """Stopped and failed ones; without any other the reasons are told."""
    first, second, _ = three(data, ledger)
    stopped = dataclasses.replace(second, status="stopped")
    assert [m.family for m in pick(data, ledger, [first, stopped], AMPLE).members] == ["lightgbm"]
    failed = dataclasses.replace(second, status="failed", error="ValueError: too deep")
    with pytest.raises(SearchError, match=r"no trial of 2 gave a model: xgboost-\w+: ValueError: too deep"):
        pick(data, ledger, [stopped, failed], AMPLE)


def test_score_is_that_of_the_calibrated_mix(data: SearchData, ledger: Ledger) -> None:
    """Timid scores are calibrated, and the score is out of fold."""
    chosen = pick(data, ledger, three(data, ledger), AMPLE)
    assert chosen.calibration is not None
    assert chosen.calibration.slope > 1
    assert 0 < chosen.score < 0.3


@pytest.fixture
def ordered(data: SearchData) -> SearchData:
    """The same with times: the newest quarter is the gate's."""
    rows = np.arange(ROWS)
    return dataclasses.replace(data, times=rows, known=rows, gate=rows[300:], rest=rows[:300])


def test_members_in_order_are_those_that_there_is_time_to_fit(ordered: SearchData, ledger: Ledger) -> None:
    """Side by side: what all slots together have time for, and none that alone takes too long."""
    trials = three(ordered, ledger, seconds=1)  # a trial takes 4 s on 1,200 rows, its last fits 1.2 and 1.6 s
    slow = run(ordered, ledger, "torch", seed=5, row_s=2e-5, seconds=100)
    found = {left_s: pick(ordered, ledger, [*trials, slow], bounds(left_s)) for left_s in (1000.0, 5.0, 2.5)}
    assert slow.id in {m.trial_id for m in found[1000.0].members}
    assert {m.trial_id for m in found[5.0].members} == {t.id for t in trials}
    assert len(found[2.5].members) == 1
    assert in_turn_s(found[5.0].members, trials, ordered, slots=2) == pytest.approx(1.5 * 1.2 + 1.5 * 1.6)
    assert in_turn_s(found[2.5].members, trials, ordered, slots=2) == pytest.approx(1.2 + 1.6)


def test_without_time_a_proof_that_is_made_serves(ordered: SearchData, ledger: Ledger) -> None:
    """Not one that was cut short, nor one that is still to be fitted, however good."""
    trials = three(ordered, ledger)
    late = bounds(0.0, made=frozenset({trials[1].id}), cut=frozenset({trials[0].id}))
    chosen = pick(ordered, ledger, trials, late)
    assert [m.trial_id for m in chosen.members] == [trials[1].id]


def bounds(left_s: float, **others: frozenset[str]) -> Bounds:
    """Return bounds of rows in order, on two slots."""
    return Bounds(row_ms=10.0, left_s=left_s, slots=2, bag=False, **others)
