"""What a search leaves behind, and finds again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from raywf.core.records import Member, Sweep, Trial
from raywf.search.ledger import Ledger

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


def test_trial_comes_back(ledger: Ledger) -> None:
    """With its scores fold by fold, more than ten of them in order."""
    scores = tuple(np.full((2, 3), i, np.float32) for i in range(12))
    ledger.record(TRIAL, scores)
    found = ledger.find(TRIAL.id)
    assert found is not None
    assert found[0] == TRIAL
    assert [f[0, 0] for f in found[1]] == list(range(12))
    assert {f.dtype for f in found[1]} == {np.dtype(np.float32)}


def test_first_record_stays(ledger: Ledger) -> None:
    """Recording a trial again changes nothing."""
    ledger.record(TRIAL, (np.zeros((1, 1), np.float32),))
    ledger.record(dataclasses.replace(TRIAL, score=0.0), (np.ones((1, 1), np.float32),))
    found = ledger.find(TRIAL.id)
    assert found is not None
    assert (found[0].score, found[1][0][0, 0]) == (-0.375, 0.0)


def test_unknown_is_none(ledger: Ledger) -> None:
    """A trial or sweep that has not finished is not there."""
    assert ledger.find("nothing") is None
    assert ledger.read_sweep() is None


def test_sweeps_are_apart(ledger: Ledger) -> None:
    """Another sweep does not see this one's trials."""
    ledger.record(TRIAL, ())
    assert Ledger(ledger.root, "other").find(TRIAL.id) is None


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
