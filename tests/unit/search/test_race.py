"""Losers are stopped after a fold, near misses go on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from raywf.core.records import Trial
from raywf.search.race import FoldRace


def report(
    race: FoldRace, name: str, loss: float, *, fold: int = 1, status: str = "running", seconds: float = 9.0
) -> str:
    """Tell the race of a trial's mean loss over its folds so far."""
    trial = Trial(id=name, family="linear", params={}, status=status, seconds=seconds)
    result = {"done": status != "running", "trials": [trial], "fold": fold, "rung": 0, "loss": loss}
    return race.on_trial_result(None, SimpleNamespace(trial_id=name), result)


@pytest.fixture
def race() -> FoldRace:
    """A race of three trials whose first fold lies between 0.4 and 0.5."""
    made = FoldRace()
    for name, loss in (("a", 0.4), ("b", 0.45), ("c", 0.5)):
        assert report(made, name, loss) == TrialScheduler.CONTINUE
    return made


def test_hopeless_trial_is_stopped(race: FoldRace) -> None:
    """It lies far behind the best, and its id is kept."""
    assert report(race, "d", 0.9) == TrialScheduler.STOP
    assert race.stopped == {"d"}


def test_a_spared_loser_goes_on() -> None:
    """Others are stopped by the same loss; what it lost does not spare them."""
    race = FoldRace(spared={"d"})
    for name, loss in (("a", 0.4), ("b", 0.45), ("c", 0.5)):
        report(race, name, loss)
    assert report(race, "d", 0.9) == TrialScheduler.CONTINUE
    assert report(race, "e", 0.9) == TrialScheduler.STOP
    assert race.stopped == {"e"}


def test_near_miss_goes_on(race: FoldRace) -> None:
    """An ensemble may want it."""
    assert report(race, "d", 0.42) == TrialScheduler.CONTINUE
    assert race.stopped == set()


def test_the_best_goes_on(race: FoldRace) -> None:
    """However bad the others are."""
    assert report(race, "d", 0.1) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("status", ["done", "failed"])
def test_ended_trial_is_not_stopped(status: str, race: FoldRace) -> None:
    """Its result counts."""
    assert report(race, "d", 9.9, status=status) == TrialScheduler.CONTINUE
    assert race.stopped == set()


@pytest.mark.parametrize(("seconds", "end"), [(0.1, "CONTINUE"), (9.0, "STOP")])
def test_a_loser_that_is_almost_through_goes_on(seconds: float, end: str) -> None:
    """It costs nothing more."""
    race = FoldRace(folds=[900] * 4)
    for name, loss in (("a", 0.4), ("b", 0.45), ("c", 0.5), ("d", 0.9)):
        found = report(race, name, loss, fold=3, seconds=seconds)
    assert found == end


def test_folds_are_compared_with_their_like(race: FoldRace) -> None:
    """The first trial to end a second fold has none to lose against."""
    assert report(race, "a", 0.9, fold=2) == TrialScheduler.CONTINUE


def test_few_scored_rows_stop_nobody() -> None:
    """Folds of a hundred rows: chance decides there, until some hundreds are scored."""
    race = FoldRace(folds=[100] * 8, rows=350)
    for fold, expected in ((1, "CONTINUE"), (3, "CONTINUE"), (4, "STOP")):
        for name, loss in (("a", 0.4), ("b", 0.45), ("c", 0.5)):
            report(race, name, loss, fold=fold)
        assert report(race, "d", 0.9, fold=fold) == expected


def recall(race: FoldRace, name: str, *losses: float, status: str = "stopped", seconds: float = 9.0) -> None:
    """Tell a new race what became of a trial before an interruption."""
    race.recall(Trial(id=name, family="mine", params={}, status=status, fold_losses=losses, seconds=seconds))


def test_after_an_interruption_the_race_goes_on() -> None:
    """Losers lose against those that ran before it, by the mean over the same folds."""
    race = FoldRace()
    recall(race, "a", 0.4, 0.4, 0.4, status="done")
    recall(race, "b", 0.45, 0.45, status="running")
    recall(race, "c", 0.5)
    assert report(race, "d", 0.9) == TrialScheduler.STOP
    assert report(race, "e", 0.42) == TrialScheduler.CONTINUE
    assert report(race, "b", 0.9, fold=3) == TrialScheduler.CONTINUE  # a last fold has stopped nobody


def test_only_those_are_recalled_that_were_in_the_race() -> None:
    """Quick trials ran through all folds at once; before enough rows are scored nobody is compared."""
    quick, early = FoldRace(), FoldRace(folds=[100] * 8, rows=350)
    for name in ("a", "b", "c"):
        recall(quick, name, 0.4, 0.4, status="done", seconds=0.1)
        recall(early, name, 0.4, 0.4)
    assert report(quick, "d", 0.9) == TrialScheduler.CONTINUE
    assert report(early, "d", 0.9, fold=2) == TrialScheduler.CONTINUE


def rung(race: FoldRace, name: str, loss: float, *, at: int = 1) -> str:
    """Tell the race of a loss at a rung of the first fold."""
    trial = Trial(id=name, family="mine", params={}, status="running")
    result = {"done": False, "trials": [trial], "fold": 0, "rung": at, "loss": loss}
    return race.on_trial_result(None, SimpleNamespace(trial_id=name), result)


def test_rungs_keep_the_best_third() -> None:
    """Of those that have come so far; the first two pass, and rungs are compared with their like."""
    race = FoldRace()
    answers = [rung(race, str(i), loss) for i, loss in enumerate([0.5, 0.6, 0.7, 0.4, 0.9, 0.45])]
    assert [a == TrialScheduler.CONTINUE for a in answers] == [True, True, False, True, False, True]
    assert race.stopped == {"2", "4"}
    assert rung(race, "0", 0.9, at=2) == TrialScheduler.CONTINUE


def test_a_trial_is_at_a_rung_once() -> None:
    """One whose worker was lost comes by again, and is no further one to be better than."""
    race = FoldRace()
    rung(race, "a", 0.5)
    for _ in range(3):
        assert rung(race, "b", 0.6) == TrialScheduler.CONTINUE


def test_rungs_are_recalled() -> None:
    """Of trials that ended before an interruption, at rungs or later."""
    race = FoldRace()
    for name, loss in (("a", 0.4), ("b", 0.5)):
        trial = Trial(id=name, family="mine", params={}, status="stopped")
        race.recall(trial, rungs=(loss, loss))
    assert rung(race, "c", 0.6) == TrialScheduler.STOP
    assert rung(race, "d", 0.3, at=2) == TrialScheduler.CONTINUE
