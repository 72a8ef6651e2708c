"""How trials end whose workers died: some come further after all, some are stopped by the race."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raywf.core.codec import encode
from raywf.core.records import Trial
from raywf.search.hold import Hold
from raywf.search.ledger import FoldResult, Ledger
from raywf.search.portfolio import make_trial
from raywf.search.queue import planned
from raywf.search.race import FoldRace
from raywf.search.tuning import _race, _Watch

WANTED = make_trial("linear", {})


class Course:
    """A trial under a watch, as Tune tells of it."""

    def __init__(self, folder: Path) -> None:
        self.race = FoldRace(folds=(2000, 2000))
        ledger = Ledger(str(folder), "s")
        self.watch = _Watch(lambda _trial: None, self.race, lambda _waiting: None, ledger)
        self._trial = SimpleNamespace(config={"jobs": [encode(WANTED)]}, error_file=None, num_failures=1)

    def report(self, folds: int) -> None:
        """Report so many folds."""
        record = dataclasses.replace(WANTED, status="running", fold_losses=(0.5,) * folds)
        result: dict[str, Any] = {"trials": [record], "node": "n", "done": False}
        self.watch.on_trial_result(1, [], self._trial, result)

    def die(self) -> None:
        """Lose the worker, and get another."""
        self.watch.on_trial_recover(1, [], self._trial)

    @property
    def end(self) -> Trial:
        """What became of it."""
        return self.watch.end_of(WANTED)


def test_one_that_does_not_come_back_has_failed(tmp_path: Path) -> None:
    """What it had before its worker died, another reports again; that is no way back."""
    course = Course(tmp_path)
    course.report(1)
    course.die()
    course.report(1)
    assert course.end.status == "failed"
    assert course.end.error.startswith("its worker died")


@pytest.mark.parametrize("before", [0, 1])
def test_one_that_comes_further_has_not_failed(before: int, tmp_path: Path) -> None:
    """The deadline may still stop it."""
    course = Course(tmp_path)
    for folds in range(1, before + 1):
        course.report(folds)
    course.die()
    course.report(before + 1)
    assert (course.end.status, course.end.error) == ("stopped", "")


def test_one_that_the_race_stops_has_not_failed(tmp_path: Path) -> None:
    """Whoever lost a worker loses the race by its folds, as any other."""
    course = Course(tmp_path)
    course.report(1)
    course.die()
    course.race.stopped.add(WANTED.id)
    course.report(1)
    assert (course.end.status, course.end.error) == ("stopped", "")


def test_what_the_race_stops_has_ended_for_good(tmp_path: Path) -> None:
    """A search that is taken up does not try it again, as it does what the deadline cut."""
    course = Course(tmp_path)
    course.report(1)
    assert Ledger(str(tmp_path), "s").trials() == ()
    course.race.stopped.add(WANTED.id)
    course.report(1)
    assert [(t.id, t.status) for t in Ledger(str(tmp_path), "s").trials()] == [(WANTED.id, "stopped")]


def test_an_interruption_changes_no_end(tmp_path: Path) -> None:
    """What has ended before it comes back as it was."""
    lost = dataclasses.replace(WANTED, status="stopped", fold_losses=(0.5,))
    done = dataclasses.replace(make_trial("linear", {"C": 0.1}), status="done", fold_losses=(0.4, 0.4))
    ledger = Ledger(str(tmp_path), "s")
    watch = _Watch(lambda _trial: None, FoldRace(), lambda _waiting: None, ledger, ended=(lost, done))
    assert [watch.end_of(t) for t in (lost, done)] == [lost, done]


def test_the_race_is_as_it_was(tmp_path: Path) -> None:
    """By the records of what has ended, and the folds of what had begun."""
    ledger, folds = Ledger(str(tmp_path), "s"), (2000, 2000)
    for at, name in enumerate(("a", "b", "c")):
        fold = FoldResult(scores=np.zeros((2, 1), np.float32), loss=0.4 + at / 20, rounds=1, seconds=2.0)
        ledger.record_fold(name, 0, fold)
        ledger.begin(dataclasses.replace(WANTED, id=name))
    ended = (dataclasses.replace(WANTED, id="d", status="stopped", fold_losses=(0.6,), seconds=2.0),)
    wanted = dataclasses.replace(planned([], fold_rows=folds, deadline=0.0), ended=ended)
    plan = SimpleNamespace(ledger=ledger)
    race = _race(wanted, plan, Hold(2, grows=False), {})  # type: ignore[arg-type]
    late = dataclasses.replace(WANTED, id="e", status="running", fold_losses=(0.9,), seconds=2.0)
    result = {"done": False, "trials": [late], "fold": 1, "rung": 0, "loss": 0.9}
    assert race.on_trial_result(None, None, result) == "STOP"
