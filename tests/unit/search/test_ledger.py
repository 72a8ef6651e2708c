"""What a search leaves behind, and finds again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from raywf.core.records import Member, Sweep, Trial
from raywf.search.ledger import FoldResult, Ledger

TRIAL = Trial(
    id="linear-1",
    family="linear",
    params={"C": 0.3, "hidden": [8, 4], "flag": True},
    status="done",
    fold_losses=(0.5, 0.25),
    score=-0.375,
    rounds=3,
    seconds=1.5,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger."""
    return Ledger(str(tmp_path), "sweep")


def result(value: float = 0.0) -> FoldResult:
    """Return what a fold gave."""
    return FoldResult(scores=np.full((2, 3), value, np.float32), loss=0.5, rounds=7, seconds=0.25, row_s=1e-5)


def test_trial_comes_back(ledger: Ledger) -> None:
    """As it was written, and among the sweep's trials."""
    ledger.record(TRIAL)
    assert ledger.find(TRIAL.id) == TRIAL
    assert ledger.trials() == (TRIAL,)


def test_folds_come_back_in_order(ledger: Ledger) -> None:
    """More than ten of them, up to the first that is missing."""
    for i in (*range(12), 13):
        ledger.record_fold(TRIAL.id, i, result(i))
    found = ledger.folds(TRIAL.id, 14)
    assert [f.scores[0, 0] for f in found] == list(range(12))
    assert {f.scores.dtype for f in found} == {np.dtype(np.float32)}
    assert (found[0].loss, found[0].rounds, found[0].seconds, found[0].row_s) == (0.5, 7, 0.25, 1e-5)


def test_first_record_stays(ledger: Ledger) -> None:
    """Recording a trial or a fold again changes nothing."""
    ledger.record(TRIAL)
    ledger.record(dataclasses.replace(TRIAL, score=0.0))
    ledger.record_fold(TRIAL.id, 0, result(1.0))
    ledger.record_fold(TRIAL.id, 0, result(2.0))
    assert ledger.find(TRIAL.id) == TRIAL
    assert ledger.folds(TRIAL.id, 1)[0].scores[0, 0] == 1.0


def test_what_had_begun_is_found_again(ledger: Ledger) -> None:
    """Not what has ended, what was stopped for its losses, nor what nothing is known of but folds."""
    for name in ("a", "b", "c", "d"):
        ledger.record_fold(name, 0, result())
    for name in ("a", "b", "c"):
        ledger.begin(dataclasses.replace(TRIAL, id=name, status="running"))
    ledger.record(dataclasses.replace(TRIAL, id="a"))
    ledger.record(dataclasses.replace(TRIAL, id="b", status="stopped", fold_losses=(0.5,)))
    assert [(t.id, t.params) for t in ledger.begun()] == [("c", TRIAL.params)]


def test_a_loser_has_ended_as_long_as_its_folds_are_there(ledger: Ledger) -> None:
    """It is tried again where a power loss took one; one that was stopped at a rung has none."""
    lost = dataclasses.replace(TRIAL, status="stopped", fold_losses=(0.5,))
    ledger.record(lost)
    ledger.record(dataclasses.replace(lost, id="rung", fold_losses=()))
    assert [t.id for t in ledger.whole_trials()] == ["rung"]
    ledger.record(lost)
    ledger.record_fold(lost.id, 0, result())
    assert [t.id for t in ledger.whole_trials()] == [lost.id, "rung"]


def test_rungs_come_back_in_order(ledger: Ledger) -> None:
    """The first loss at each, up to the first that is missing."""
    for number, loss in ((1, 0.5), (2, 0.25), (2, 9.0), (4, 0.125)):
        ledger.record_rung("mine", number, loss)
    assert (ledger.rungs("mine"), ledger.rungs("other")) == ((0.5, 0.25), ())


def test_model_comes_back(ledger: Ledger, tmp_path: Path) -> None:
    """Its files, byte by byte; a fold without one says so."""
    files = {"model.txt": b"tree\n", "trees.json": bytes(range(256))}
    ledger.record_fold(TRIAL.id, 0, result(), model=files)
    ledger.record_fold(TRIAL.id, 1, result())
    folder = tmp_path / "model"
    folder.mkdir()
    ledger.write_model(TRIAL.id, 0, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == files
    with pytest.raises(FileNotFoundError):
        ledger.write_model(TRIAL.id, 1, folder)


def test_first_settled_value_stays(ledger: Ledger) -> None:
    """A resumed search decides as the first one did."""
    assert ledger.settled("pace") is None
    assert ledger.settle("pace", {"rounds": 3.0}) == {"rounds": 3.0}
    assert ledger.settle("pace", {"rounds": 9.0}) == ledger.settled("pace") == {"rounds": 3.0}


def test_unknown_is_none(ledger: Ledger) -> None:
    """A trial or sweep that has not finished is not there."""
    assert ledger.find("nothing") is None
    assert ledger.trials() == ()
    assert ledger.read_sweep() is None


def test_sweeps_are_apart(ledger: Ledger) -> None:
    """Another sweep does not see this one's trials."""
    ledger.record(TRIAL)
    ledger.record_fold(TRIAL.id, 0, result())
    other = Ledger(ledger.root, "other")
    assert (other.find(TRIAL.id), other.folds(TRIAL.id, 1)) == (None, ())


def test_sweep_comes_back(ledger: Ledger) -> None:
    """Equal to what was written."""
    member = Member(trial_id="linear-1", family="linear", params={}, rounds=3, weight=1.0)
    sweep = Sweep(
        id="sweep",
        snapshot_id="s",
        metric="rmse",
        greater_is_better=False,
        trials=(TRIAL,),
        members=(member,),
        score=0.4,
        calibrated=False,
        budget_s=5,
        spent_s=4.5,
        cpu_s=3,
        warm_from="older",
    )
    ledger.write_sweep(sweep)
    assert ledger.read_sweep() == sweep


@pytest.mark.parametrize("kept", [0, 20])
def test_what_a_power_loss_cut_off_is_missing_and_made_again(ledger: Ledger, kept: int) -> None:
    """Both a fold's file and a trial's: the next one takes its place."""
    ledger.record(TRIAL)
    ledger.record_fold(TRIAL.id, 0, result())
    for path in [p for p in Path(ledger.root).rglob("*") if p.is_file()]:
        path.write_bytes(path.read_bytes()[:kept])
    assert ledger.find(TRIAL.id) is None
    assert ledger.fold(TRIAL.id, 0) is None
    ledger.record(TRIAL)
    ledger.record_fold(TRIAL.id, 0, result(1.0))
    assert ledger.find(TRIAL.id) == TRIAL
    found = ledger.fold(TRIAL.id, 0)
    assert found is not None
    assert found.scores.max() == 1.0
