"""What is handed out next, and what the time left is too short for."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from ray.tune.search import Searcher

from raywf.core.codec import decode
from raywf.core.records import Trial
from raywf.core.space import parse_space
from raywf.search.pace import Pace, choose_folds, fit_seconds
from raywf.search.portfolio import make_trial, neighbour
from raywf.search.queue import QueuePlan, Spaces, TrialQueue, planned

QUICK, SLOW = Pace(round_s=0.0001, rounds=100), Pace(round_s=1.0, rounds=100)
BOOSTER = {"learning_rate": 0.05, "num_leaves": 31}


def make(*, pace: Pace = QUICK, left_s: float = 60, most: int = 40) -> TrialQueue:
    """Return a queue of a booster and three linear configurations, in five folds."""
    trials = (make_trial("lightgbm", BOOSTER), *(make_trial("linear", {"C": c}) for c in (0.1, 1.0, 9.0)))
    return TrialQueue(
        QueuePlan(
            trials=trials,
            fold_rows=(100,) * 5,
            most=most,
            deadline=time.time() + left_s,
            seed=0,
            pace=pace,
        )
    )


def take(queue: TrialQueue, name: str) -> Trial | Any:
    """Ask for a trial as Tune does."""
    found = queue.suggest(name)
    return decode(Trial, found["jobs"][0]) if isinstance(found, dict) else found


def end(queue: TrialQueue, name: str, trial: Trial, *, seconds: float = 1.0) -> None:
    """Tell the queue that a trial is done."""
    done = dataclasses.replace(trial, status="done", fold_losses=(0.5,), score=0.5, seconds=seconds)
    queue.on_trial_complete(name, {"trials": [done]})


def test_portfolio_comes_first_then_neighbours() -> None:
    """In order; neighbours wait for finished trials, and are new."""
    queue = make()
    first = [take(queue, f"t{i}") for i in range(4)]
    assert [t.family for t in first] == ["lightgbm", "linear", "linear", "linear"]
    assert take(queue, "t4") is None  # others run: ask again
    for i, trial in enumerate(first):
        end(queue, f"t{i}", trial)
    more = [take(queue, f"m{i}") for i in range(5)]
    assert len({t.id for t in [*first, *more]}) == 9


def test_what_has_ended_is_not_handed_out_again() -> None:
    """Winners and losers of an interrupted search count, and neighbours go on where they were."""
    plan = make(most=99)._plan
    wins = [dataclasses.replace(t, status="done", fold_losses=(0.5,)) for t in plan.trials[1:]]
    lost = dataclasses.replace(plan.trials[0], status="stopped", fold_losses=(0.9,))
    tried = {t.id: t for t in (neighbour(wins, i, seed=0) for i in range(40)) if t is not None}
    more = [dataclasses.replace(t, status="stopped", fold_losses=(0.9,)) for t in tried.values()]
    queue = TrialQueue(dataclasses.replace(plan, ended=(*wins, lost, *more)))
    found = take(queue, "t0")
    assert isinstance(found, Trial)
    assert found.id not in {t.id for t in queue._plan.ended}


def test_draws_learn_from_rungs_before_an_interruption() -> None:
    """One that was stopped at a rung is no failure: it came so far, with that loss."""
    lost = dataclasses.replace(make_trial("mine", {"x": 0.5}), status="stopped")
    drawn = Spaces(spaces={"mine": parse_space({"x": {"low": 0.0, "high": 1.0}})})
    plan = dataclasses.replace(make()._plan, drawn=drawn, ended=(lost,))
    studies = TrialQueue(plan, rungs={lost.id: (0.7, 0.6)})._studies
    assert studies is not None
    assert studies._studies["mine"].trials[0].intermediate_values == {2: 0.6}


def test_number_is_bounded() -> None:
    """After the last trial that is allowed there is none; that is told when all have ended."""
    queue = make(most=2)
    first = [take(queue, f"t{i}") for i in range(2)]
    assert take(queue, "t2") is None
    for i, trial in enumerate(first):
        end(queue, f"t{i}", trial)
    assert take(queue, "t2") == Searcher.FINISHED


def test_first_trial_is_tried_whatever_it_takes() -> None:
    """Later ones that cannot end in time are passed over for those that can."""
    queue = make(pace=dataclasses.replace(SLOW, round_s=0.02), left_s=8)
    assert take(queue, "t0").family == "lightgbm"
    assert take(queue, "t1").family == "linear"


def test_nothing_begins_after_the_deadline() -> None:
    """But the first one."""
    queue = make(left_s=-1)
    assert isinstance(take(queue, "t0"), Trial)
    assert take(queue, "t1") == Searcher.FINISHED


def foreseen(*, left_s: float, sure: int, until_s: float) -> TrialQueue:
    """Return a queue that ends so late once its first trials, which are sure, are done."""
    plan, now = make(pace=dataclasses.replace(SLOW, round_s=0.02))._plan, time.time()
    return TrialQueue(
        dataclasses.replace(
            plan,
            trials=plan.trials[::-1],
            deadline=now + left_s,
            latest=now + 50,
            until=lambda _done: now + until_s,
            sure=frozenset(t.id for t in plan.trials[::-1][:sure]),
        )
    )


def test_sure_trials_are_handed_out_however_short_the_time_is() -> None:
    """The booster takes far longer than what is left, and comes all the same where it is sure."""
    for sure, families in ((0, ["linear"] * 3), (4, ["linear"] * 3 + ["lightgbm"])):
        queue = foreseen(left_s=8, sure=sure, until_s=8)
        found = [take(queue, f"t{i}") for i in range(4)]
        assert [t.family for t in found if isinstance(t, Trial)] == families


def test_the_end_is_foreseen_once_all_sure_trials_are_done() -> None:
    """Later than the deadline before, or sooner; at the latest possible."""
    for until_s, end_s in ((20, 20), (3, 3), (99, 50)):
        queue, now = foreseen(left_s=8, sure=2, until_s=until_s), time.time()
        first = [queue.suggest(f"t{i}") for i in range(2)]
        end(queue, "t0", decode(Trial, first[0]["jobs"][0]))
        assert queue.deadline - now == pytest.approx(8, abs=0.5)
        assert first[1]["last"] is None
        end(queue, "t1", decode(Trial, first[1]["jobs"][0]))
        assert queue.deadline - now == pytest.approx(end_s, abs=0.5)


def test_slower_learning_takes_longer() -> None:
    """The cost model follows the rate and the leaves."""
    fast, slow, big = (
        fit_seconds(QUICK, "lightgbm", BOOSTER | change)
        for change in ({"learning_rate": 0.1}, {}, {"num_leaves": 200})
    )
    assert fast < slow < big


@pytest.mark.parametrize(("round_s", "folds"), [(1e-5, 24), (0.006, 5), (10.0, 1)])
def test_folds_follow_from_the_pace(round_s: float, folds: int) -> None:
    """Repeats on tiny tables, a single hold-out on huge ones."""
    trials = [make_trial("lightgbm", BOOSTER)] * 6
    assert choose_folds(Pace(round_s=round_s, rounds=100), trials, 100.0, rows=1000) == folds


def test_of_a_model_that_nothing_is_known_of_there_are_three_folds() -> None:
    """However little its fits seem to take; beside others they tell."""
    own, known = make_trial("mine", {}), make_trial("lightgbm", BOOSTER)
    assert choose_folds(QUICK, [own], 100.0, rows=1000) == 3
    assert choose_folds(QUICK, [own, known], 100.0, rows=1000) == choose_folds(
        QUICK, [known], 100.0, rows=1000
    )


@pytest.mark.parametrize(("rows", "folds"), [(9_000, 5), (12_000, 1)])
def test_of_many_rows_trials_are_worth_more_than_folds(rows: int, folds: int) -> None:
    """Where the portfolio would not be tried on three folds, a hold-out tells its configurations apart."""
    trials = [make_trial("lightgbm", BOOSTER)] * 18
    assert choose_folds(Pace(round_s=0.006, rounds=100), trials, 100.0, rows=rows) == folds


def hand(queue: TrialQueue, name: str) -> list[Trial]:
    """Ask for trials as Tune does, all of them."""
    return [decode(Trial, job) for job in queue.suggest(name)["jobs"]]


def test_quick_trials_are_handed_out_together() -> None:
    """As soon as they are known to be quick: most of its share to each slot, the rest later, each once."""
    trials = tuple(make_trial("linear", {"C": 0.001 * (i + 1)}) for i in range(200))
    queue = TrialQueue(planned(trials, fold_rows=(9,), deadline=time.time() + 60, slots=4))
    first = hand(queue, "t")
    assert len(first) == 1
    queue.on_trial_complete("t", {"trials": [dataclasses.replace(first[0], status="done", seconds=0.02)]})
    sizes = []
    while len(queue.handed) < 200:
        sizes.append(len(hand(queue, f"t{len(sizes)}")))
    assert all(size in {42, 43, 44} for size in sizes[:4])  # of 50; by how much they differ is unknown
    assert sum(sizes) == 199


def test_trials_that_take_alike_are_handed_out_at_once() -> None:
    """A slot's whole share, where nothing would be late; what is under way counts."""
    trials = tuple(make_trial("linear", {"C": 0.001 * (i + 1)}) for i in range(202))
    queue = TrialQueue(planned(trials, fold_rows=(9,), deadline=time.time() + 60, slots=4))
    for name in ("t", "u"):
        first = hand(queue, name)[0]
        queue.on_trial_complete(name, {"trials": [dataclasses.replace(first, status="done", seconds=0.4)]})
    assert [len(hand(queue, f"h{i}")) for i in range(2)] == [10, 10]  # four seconds, so that progress shows
    quick = [dataclasses.replace(first, status="done", seconds=0.02)] * 40
    queue.on_trial_complete("h0", {"trials": quick})
    assert len(hand(queue, "h2")) == 93  # a quarter of 171 and of what the other hand has before it, 4 s


def test_slots_that_are_served_one_by_one_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left over for a last hand, though the driver comes to the last slot late."""
    now, slots, each, serve = 1e9, 32, 0.1, 0.015
    monkeypatch.setattr(time, "time", lambda: now)
    trials = tuple(make_trial("linear", {"C": 0.001 * (i + 1)}) for i in range(802))
    queue = TrialQueue(planned(trials, fold_rows=(9,), deadline=now + 60, slots=slots))
    for name in ("t", "u"):
        first = hand(queue, name)[0]
        queue.on_trial_complete(name, {"trials": [dataclasses.replace(first, status="done", seconds=each)]})
    ends = []
    for slot in range(slots):
        ends.append(now + each * len(hand(queue, f"h{slot}")))
        now += serve
    assert 800 - slots / 4 <= len(queue.handed) <= 802
    assert max(ends) - min(ends) <= 2 * each


def test_a_model_of_the_user_s_own_is_begun_by_what_its_trials_took() -> None:
    """Nothing is known of it before: the first begins, and none that the time left is too short for."""
    trials = tuple(make_trial("mine", {"x": x}) for x in (1, 2, 3))
    plan = dataclasses.replace(make(left_s=60)._plan, trials=trials, more=False)
    queue = TrialQueue(plan)
    first = take(queue, "t0")
    end(queue, "t0", first, seconds=70.0)
    assert take(queue, "t1") is not None
    late = TrialQueue(dataclasses.replace(plan, deadline=time.time() + 30))
    end(late, "t0", take(late, "t0"), seconds=70.0)
    assert late.suggest("t1") == late.FINISHED


def test_slow_trials_go_one_by_one() -> None:
    """A fold at a time, so that losers stop early."""
    trials = tuple(make_trial("linear", {"C": 0.001 * (i + 1)}) for i in range(50))
    queue = TrialQueue(planned(trials, fold_rows=(9,), deadline=time.time() + 60, slots=4))
    first = hand(queue, "t")[0]
    queue.on_trial_complete("t", {"trials": [dataclasses.replace(first, status="done", seconds=0.9)]})
    assert len(hand(queue, "u")) == 1


def test_draws_and_neighbours_take_turns() -> None:
    """After the portfolio; a model of the user's own is drawn no more often than it says."""
    drawn = Spaces(spaces={"mine": parse_space({"x": {"low": 0.0, "high": 1.0}})}, most={"mine": 3})
    queue = make()
    queue = TrialQueue(dataclasses.replace(queue._plan, drawn=drawn))
    for i in range(4):
        end(queue, f"t{i}", take(queue, f"t{i}"))
    more = [take(queue, f"m{i}").family for i in range(9)]
    assert more.count("mine") == 3
    assert more[0] != more[1]


def test_a_hand_whose_worker_died_is_tried_again_one_by_one() -> None:
    """Only the trial that ends its worker alone too is lost; meanwhile the queue is not finished."""
    trials = [make_trial("linear", {"C": c / 100}) for c in range(1, 41)]
    queue = TrialQueue(planned(trials, fold_rows=(100,), deadline=time.time() + 60))
    end(queue, "t0", take(queue, "t0"), seconds=0.01)
    hands = [found["jobs"] for found in iter(lambda: queue.suggest(f"h{len(queue.handed)}"), None)]
    assert len(queue.handed) == 40
    queue.on_trial_complete("h1", None, error=True)
    again = [take(queue, f"a{i}").id for i in range(len(hands[0]))]
    assert again == [job["id"] for job in hands[0]]
    assert len(again) > 1
    for i in range(len(again)):
        queue.on_trial_complete(f"a{i}", None, error=True)


def many(count: int, slots: int) -> TrialQueue:
    """Return a queue of so many alike trials of which none has ended yet."""
    trials = [make_trial("linear", {"C": float(i + 1)}) for i in range(count)]
    return TrialQueue(planned(trials, fold_rows=(100,), deadline=time.time() + 60, slots=slots))


def test_first_hands_of_very_many_alike_are_of_a_few_within_a_slice() -> None:
    """Of fewer they are of one each, since the next may take long."""
    queue = many(100, 8)
    hands = [queue.suggest(f"t{i}") for i in range(2)]
    assert [len(hand["jobs"]) for hand in hands] == [10, 10]
    assert hands[0]["slice_s"] == 0.5 < hands[1]["slice_s"]  # so that they do not come back together
    assert len(many(30, 8).suggest("t0")["jobs"]) == 1


def test_what_a_worker_returns_is_handed_out_again_first() -> None:
    """However often it says so, and whoever asks next."""
    queue = many(100, 8)
    jobs = [decode(Trial, job) for job in queue.suggest("t0")["jobs"]]
    returned = {"trials": [], "returned": [t.id for t in jobs[2:]]}
    for _ in range(2):
        queue.on_trial_result("t0", returned)
    assert set(queue.handed) == {jobs[0].id, jobs[1].id}
    done = [dataclasses.replace(t, status="done", seconds=0.1) for t in jobs[:2]]
    queue.on_trial_complete("t0", returned | {"trials": done})
    again = queue.suggest("t1")["jobs"]
    assert [decode(Trial, job).id for job in again[:8]] == [t.id for t in jobs[2:]]
