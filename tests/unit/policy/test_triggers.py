"""The triggers that are set by name: when each is due, how they are joined, nothing twice."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_policy import BAD, DAY, GOOD, START, after_a_look, champion, looked, seen, window

from raywf.core.records import Drift
from raywf.core.retrain_settings import BadWindowSettings, RetrainSettings
from raywf.policy.history import History, PastDecision
from raywf.policy.policy import decide

THREE_OF_FIVE = BadWindowSettings(bad=3, of=5)
HISTORY = {field.name for field in dataclasses.fields(History)}


def run(evidence=GOOD, *, at=20.0, least=200, **told):
    """Decide at a day; what is told is history or settings."""
    history = {key: value for key, value in told.items() if key in HISTORY}
    chosen = {"look": None} | {key: value for key, value in told.items() if key not in HISTORY}
    return decide(
        evidence,
        History(**({"champion": champion(), "since": START} | history)),
        RetrainSettings(**chosen),
        workflow="w",
        now=START + at * DAY,
        min_labelled=least,
    )


def drifted(day, psi, *, column="x", **more):
    """A day whose rows moved."""
    made = window(day, 0.1, **more)
    drift = (Drift(column="calm", psi=0.01, rows=made.rows, missing=0.0),)
    return dataclasses.replace(
        made, drift=(*drift, Drift(column=column, psi=psi, rows=made.rows, missing=0.0))
    )


def unlabelled(day, expected, *, error=0.005):
    """A day whose labels have not come, with the loss that is expected."""
    made = window(day, 0.0, labelled=0)
    return dataclasses.replace(made, estimated_loss=expected, estimated_error=error)


def proven(day, loss, expected):
    """A day whose labels came, and what had been expected."""
    return dataclasses.replace(window(day, loss), estimated_loss=expected, estimated_error=0.005)


def aged(days, **more):
    """A champion whose newest rows are of so many days before the start."""
    return dataclasses.replace(champion(**more), fitted_until=START - days * DAY)


def decided(cause, window_id, day, *, kind="retrain", stage="rejected"):
    """A decision of a day and what came of it."""
    made = dataclasses.replace(run(requests={"r": ""}), id=f"{cause}-{day}", cause=cause, window=window_id)
    return PastDecision(decision=dataclasses.replace(made, kind=kind, time=START + day * DAY), stage=stage)


ROSE_LATE = [window(d, 0.1 if d < 17 else 0.13) for d in range(20)]
MOVED = [drifted(d, 0.1 if d < 17 else 0.4) for d in range(20)]
PROOF = [proven(d, 0.1, 0.105) for d in range(12)]
EXPECTED = [*PROOF, *(unlabelled(d, 0.2) for d in range(12, 20))]
TWICE = (decided("age", "1", 10),)
CASES = [
    # N of M: three of the last five, however many there were before
    ({"evidence": ROSE_LATE}, "skip", "quiet"),
    ({"evidence": ROSE_LATE, "windows": THREE_OF_FIVE}, "retrain", "windows"),
    ({"evidence": ROSE_LATE[:19], "windows": THREE_OF_FIVE}, "skip", "quiet"),
    ({"evidence": ROSE_LATE[17:], "windows": THREE_OF_FIVE}, "retrain", "windows"),
    ({"evidence": ROSE_LATE, "windows": THREE_OF_FIVE, "tolerance": 0.05}, "skip", "quiet"),
    ({"evidence": ROSE_LATE, "windows": THREE_OF_FIVE, "least": 3000}, "skip", "quiet"),
    (
        {"evidence": ROSE_LATE, "windows": THREE_OF_FIVE, "champion": champion(loss=None)},
        "retrain",
        "windows",
    ),
    ({"evidence": ROSE_LATE, "windows": THREE_OF_FIVE, **after_a_look(0.1)}, "skip", "fallen-vain"),
    ({"evidence": ROSE_LATE, "windows": THREE_OF_FIVE, **after_a_look(0.0985)}, "retrain", "windows"),
    ({"evidence": BAD, "windows": THREE_OF_FIVE}, "retrain", "loss"),
    ({"evidence": [], "windows": THREE_OF_FIVE}, "skip", "labels"),
    # the loss that is expected
    ({"evidence": EXPECTED}, "skip", "quiet"),
    ({"evidence": EXPECTED, "estimated": True}, "retrain", "estimate"),
    ({"evidence": EXPECTED, "estimated": True, "tolerance": 0.12}, "skip", "quiet"),
    ({"evidence": EXPECTED[12:], "estimated": True}, "skip", "labels"),
    ({"evidence": [*PROOF, unlabelled(19, 0.2, error=0.1)], "estimated": True}, "skip", "quiet"),
    ({"evidence": [*PROOF, unlabelled(19, 0.12)], "estimated": True}, "skip", "quiet"),
    (
        {"evidence": [*(proven(d, 0.1, 0.17) for d in range(12)), *EXPECTED[12:]], "estimated": True},
        "skip",
        "quiet",
    ),
    ({"evidence": [*GOOD[:12], *EXPECTED[12:]], "estimated": True}, "skip", "quiet"),
    ({"evidence": PROOF, "estimated": True}, "skip", "quiet"),
    (
        {"evidence": EXPECTED, "estimated": True, "last_retrain": START + 15 * DAY, "at": 23},
        "retrain",
        "estimate",
    ),
    ({"evidence": EXPECTED, "estimated": True, "last_retrain": START + 20 * DAY, "at": 27}, "skip", "labels"),
    # drift asks for a look
    ({"evidence": MOVED, "drift": 0.25}, "skip", "quiet"),
    ({"evidence": MOVED, "drift": 0.25, "look": 30 * DAY}, "probe", "drift"),
    ({"evidence": MOVED, "drift": 0.5, "look": 30 * DAY}, "skip", "quiet"),
    ({"evidence": MOVED, "look": 30 * DAY}, "skip", "quiet"),
    ({"evidence": MOVED, "drift": 0.25, "look": 30 * DAY, "regret": None}, "skip", "quiet"),
    ({"evidence": MOVED, "drift": 0.25, "look": 30 * DAY, "decisions": (looked(19.5),)}, "probe", "drift"),
    ({"evidence": MOVED, "drift": 0.25, "look": 30 * DAY, "decisions": (looked(20),)}, "skip", "quiet"),
    (
        {"evidence": MOVED, "drift": 0.25, "look": 30 * DAY, "decisions": (looked(15, "drift"),)},
        "skip",
        "quiet",
    ),
    ({"evidence": MOVED, "drift": 0.25, "look": 30 * DAY, "least": 401}, "skip", "quiet"),
    ({"evidence": MOVED, "drift": 0.25, "look": 7 * DAY}, "probe", "drift"),
    # rows
    ({"after_rows": 8000}, "retrain", "rows"),
    ({"after_rows": 8001}, "skip", "quiet"),
    ({"after_rows": 8000, "at": 19}, "retrain", "rows"),
    ({"after_rows": 4001, "last_retrain": START + 10 * DAY}, "skip", "quiet"),
    ({"after_rows": 4000, "last_retrain": START + 10 * DAY}, "retrain", "rows"),
    ({"after_rows": 8000, "evidence": [window(d, 0.1, version="0") for d in range(20)]}, "skip", "labels"),
    # age
    ({"max_age": 30 * DAY}, "skip", "quiet"),
    ({"max_age": 30 * DAY, "at": 31}, "retrain", "age"),
    ({"max_age": 30 * DAY, "champion": aged(11)}, "retrain", "age"),
    ({"max_age": 30 * DAY, "champion": aged(9)}, "skip", "quiet"),
    ({"max_age": 30 * DAY, "champion": aged(90), "at": 5}, "skip", "cooldown"),
    ({"max_age": 30 * DAY, "since": None}, "skip", "quiet"),
    (
        {"max_age": 30 * DAY, "champion": aged(90), "decisions": TWICE, "last_retrain": START + 15 * DAY},
        "skip",
        "cooldown",
    ),
    (
        {"max_age": 30 * DAY, "champion": aged(90), "decisions": TWICE, "last_retrain": START + 10 * DAY},
        "retrain",
        "age",
    ),
    # data
    ({"landed": "abc", "landed_in": ("spine",)}, "skip", "quiet"),
    ({"on_data": True, "landed": "abc", "landed_in": ("spine",)}, "retrain", "data"),
    ({"on_data": True, "landed": "abc", "at": 5}, "skip", "cooldown"),
    ({"on_data": True}, "skip", "quiet"),
    # joined
    ({"when": "loss", "every": DAY}, "skip", "quiet"),
    ({"when": "loss", "evidence": BAD}, "retrain", "loss"),
    ({"when": "schedule", "every": 30 * DAY, "evidence": BAD}, "skip", "fallen-when"),
    ({"when": "loss and schedule", "every": DAY}, "skip", "quiet"),
    ({"when": "loss and schedule", "every": DAY, "evidence": BAD}, "retrain", "loss"),
    ({"when": "schedule and loss", "every": DAY, "evidence": BAD}, "retrain", "schedule"),
    ({"when": "loss or schedule", "every": DAY}, "retrain", "schedule"),
    ({"when": "drift", "drift": 0.25, "evidence": MOVED}, "retrain", "drift"),
    ({"when": "drift and loss", "drift": 0.25, "evidence": MOVED}, "skip", "quiet"),
    ({"when": "age", "max_age": 30 * DAY, "requests": {"r1": ""}}, "retrain", "request"),
    ({"when": "age", "max_age": 30 * DAY, "look": 7 * DAY}, "probe", "look"),
    ({"when": "age", "max_age": 30 * DAY, "look": 30 * DAY, "evidence": BAD}, "probe", "rise"),
    (
        {"when": "age", "max_age": 30 * DAY, "look": 30 * DAY, "drift": 0.25, "evidence": MOVED},
        "probe",
        "drift",
    ),
    ({"when": "loss or rows", "after_rows": 1, "at": 5}, "skip", "cooldown"),
]


def grown(growth, newer, *, day=19.0, version="1"):
    """A look at which the history had grown so, and newer rows helped quick models by such a share."""
    return dataclasses.replace(
        seen(day, 0.1, 0.12, version=version), growth=growth, former=0.12 + 0.1 * newer
    )


@pytest.mark.parametrize(
    ("told", "window_id"),
    [
        ({"probes": (grown(2.1, 0.05),)}, "1 x2.00"),
        ({"probes": (grown(2.9, 0.05),)}, "1 x2.83"),
        ({"probes": (grown(4.5, 0.05),)}, "1 x4.00"),
        ({"probes": (grown(4.5, 0.05),), "growth": 4.0}, "1 x4.00"),
        ({"probes": (grown(1.9, 0.05),)}, None),
        ({"probes": (grown(2.1, 0.009),)}, None),
        ({"probes": (grown(2.1, 0.05, day=12), grown(2.2, 0.0))}, None),
        ({"probes": (grown(2.1, 0.05, version="0"),)}, None),
        ({"probes": (grown(2.1, 0.05),), "growth": None}, None),
        ({"probes": (grown(None, 0.05),)}, None),
    ],
)
def test_a_history_that_has_grown_asks_where_newer_rows_help(told, window_id):
    """The last look says so; once a time that it has grown."""
    made = run(**told)
    if window_id is None:
        assert made.kind == "skip"
        return
    assert (made.kind, made.cause, made.window) == ("retrain", "growth", window_id)
    done = PastDecision(decision=made, stage="rejected")
    assert run(**told, decisions=(done,)).kind == "skip"
    failed = (dataclasses.replace(done, stage="failed"),)
    assert run(**told, decisions=failed).kind == "skip"
    again = run(**told, decisions=failed, at=20.1)
    assert (again.cause, again.window) == ("growth", f"{window_id}#2")


def test_a_landing_whose_retraining_failed_is_tried_again():
    """An hour later, then after two: the labels may have come meanwhile. What was rejected is not."""
    told = {"on_data": True, "landed": "abc", "cooldown": 0 * DAY}
    failed = (decided("data", "abc", 20, stage="failed"), decided("data", "abc#2", 20.1, stage="failed"))
    assert run(**told, decisions=failed[:1], at=20.01).kind == "skip"
    assert run(**told, decisions=failed[:1], at=20.05).window == "abc#2"
    assert run(**told, decisions=failed, at=20.15).kind == "skip"
    assert run(**told, decisions=failed, at=20.2).window == "abc#3"
    stopped = dataclasses.replace(PastDecision(decision=run(**told), stage="failed"), is_stopped=True)
    assert run(**told, decisions=(stopped,), at=21).kind == "skip"
    judged = PastDecision(decision=run(**told), stage="rejected")
    assert run(**told, decisions=(judged,), at=21).kind == "skip"


def test_a_window_that_has_not_ended_is_not_bad_yet():
    """The first rows of a day say little of it."""
    young = window(19, 0.9, rows=5)
    bad = [*ROSE_LATE[:17], *(window(d, 0.1) for d in (17,)), window(18, 0.13), young]
    rule = BadWindowSettings(bad=2, of=5)
    assert run(bad, windows=rule, at=19.01).kind == "skip"
    assert run(bad, windows=rule, at=20).cause == "windows"


@pytest.mark.parametrize(("case", "kind", "cause"), CASES)
def test_cases(case, kind, cause):
    """What is decided in each situation, and that a reason is given."""
    decision = run(**case)
    assert (decision.kind, decision.cause) == (kind, cause)
    assert decision.reasons


REASONS = [
    ({"evidence": ROSE_LATE, "windows": THREE_OF_FIVE}, "3 of the last 5 windows (2,000 labelled rows)"),
    ({"evidence": EXPECTED, "estimated": True}, "a loss of 0.2000 is expected, at least 0.1918"),
    ({"evidence": EXPECTED, "estimated": True}, "off by 0.0050"),
    ({"evidence": MOVED, "drift": 0.25, "look": 30 * DAY}, "feature 'x' has a stability index of 0.400 in"),
    ({"after_rows": 8000}, "8,000 of 8,000 rows got labels since 2020-01-01T00:00:00Z"),
    ({"max_age": 30 * DAY, "champion": aged(11)}, "31.0 days old, of 30d"),
    ({"on_data": True, "landed": "abc", "landed_in": ("spine", "prices")}, "landed in spine, prices (abc)"),
    ({"cron": "0 3 * * 1", "timezone": "Europe/Berlin"}, "02:00:00Z (03:00 in Europe/Berlin) is due"),
    # what a skip says of how far it is
    ({"after_rows": 10_000}, "8,000 of 10,000 rows got labels"),
    ({"max_age": 30 * DAY}, "20.0 days old, of 30d"),
    ({"on_data": True}, "no table is known to have changed"),
    ({"evidence": [], "windows": THREE_OF_FIVE}, "the last 0 windows have 0 of 200 labels"),
    ({"evidence": MOVED, "drift": 0.5}, "stability index of 0.400 in the last 3 windows, of 0.5"),
    ({"drift": 0.5}, "no window of 200 rows to tell of drift by"),
    ({"estimated": True}, "0 of 200 rows without a label, 0 of 200 with one"),
    ({"value_drop": 0.1}, "too few values to tell"),
    (
        {"evidence": ROSE_LATE, "windows": THREE_OF_FIVE, **after_a_look(0.1)},
        "a quick model of newer rows is no",
    ),
    ({"when": "loss and schedule", "every": DAY}, "wants 'loss and schedule', of which holds: schedule"),
    ({"when": "schedule", "every": 30 * DAY, "evidence": BAD}, "which is not all that retrain.when wants"),
]


@pytest.mark.parametrize(("case", "text"), REASONS)
def test_reasons_tell_the_figures(case, text):
    """Of a retraining, of a look and of a skip."""
    assert text in "; ".join(run(**case).reasons)


def test_what_is_not_set_says_nothing():
    """A skip of the defaults reads as it always did."""
    assert len(run().reasons) == 1
    assert run().reasons[0].startswith("nothing wrong: the champion's loss is at least")


def test_joined_reasons_are_those_of_all_that_hold():
    """With the cause and window of the first that is named."""
    told = {"evidence": BAD, "every": DAY, "after_rows": 100}
    decision = run(when="rows and (drift or loss) and schedule", drift=0.25, **told)
    assert (decision.cause, decision.window) == ("rows", "2020-01-01T00:00:00Z")
    assert [reason.split()[0] for reason in decision.reasons] == ["8,000", "the", "the"]
    assert "the schedule's slot" in decision.reasons[2]
    alone = run(when="drift and loss or rows", drift=0.25, **told)
    assert (alone.cause, len(alone.reasons)) == ("rows", 1)


def test_an_alternative_is_open_where_the_first_was_decided_before():
    """But not what is joined to it."""
    first = run(BAD, when="loss or schedule", every=DAY)
    past = {"decisions": (PastDecision(decision=first, stage="failed", is_stopped=True),)}
    assert run(BAD, when="loss or schedule", every=DAY, **past).cause == "schedule"
    assert run(BAD, when="loss and schedule", every=DAY, **past).kind == "skip"


def test_rows_count_once_their_labels_are_a_fair_sample():
    """And none before a change and after it."""
    young = [dataclasses.replace(w, maturity_s=10 * DAY.total_seconds()) for w in GOOD]
    assert "of 8,000 rows" in run(young, at=25, after_rows=8000).reasons[-1]
    assert "6,000 of" in run(young, at=25, after_rows=8000).reasons[-1]
    assert "4,000 of" in run(young, at=35, after_rows=8000, last_retrain=START + 20 * DAY).reasons[-1]


def test_a_champion_that_stays_too_old_is_tried_again_after_a_while():
    """Under a number, and not at each tick though nothing cools down."""
    told = {"max_age": 30 * DAY, "champion": aged(90), "cooldown": timedelta(0)}
    first = run(**told)
    assert first.window == "1"
    past = (PastDecision(decision=first, stage="rejected"),)
    assert run(**told, decisions=past, at=20.01, last_retrain=first.time).kind == "skip"
    again = run(**told, decisions=past, at=23, last_retrain=first.time)
    assert (again.window, again.id == first.id) == ("1#2", False)
    assert "tries in vain: 1" in again.reasons[0]
    other = run(**{**told, "champion": aged(90, version="2")}, decisions=past, at=23)
    assert other.window == "2"


def test_data_that_landed_is_decided_on_once():
    """Other versions are other data."""
    first = run(on_data=True, landed="abc")
    past = {"decisions": (PastDecision(decision=first, stage="rejected"),)}
    assert run(on_data=True, landed="abc", **past).kind == "skip"
    assert run(on_data=True, landed="abd", **past).cause == "data"


def test_drift_asks_for_a_look_once_in_a_while():
    """It lasts, and the looks that it asks for lie as far apart as the others."""
    moved, past, days = [drifted(d, 0.4) for d in range(60)], (), []
    for day in range(7, 60):
        made = run(moved[:day], at=day, drift=0.25, look=14 * DAY, decisions=past)
        if made.kind == "probe" and made.cause == "drift":
            days.append(day)
        past += (PastDecision(decision=made, stage="looked"),)
    assert days == [7, 21, 35, 49]


_settings = st.fixed_dictionaries(
    {
        "look": st.none() | st.just(5 * DAY),
        "every": st.none() | st.just(9 * DAY),
        "windows": st.none() | st.just(THREE_OF_FIVE),
        "estimated": st.booleans(),
        "drift": st.none() | st.just(0.25),
        "after_rows": st.none() | st.just(2000),
        "max_age": st.none() | st.just(12 * DAY),
        "on_data": st.booleans(),
        "cooldown": st.sampled_from([timedelta(0), 3 * DAY]),
    }
)
_days = st.lists(
    st.tuples(st.sampled_from([0.1, 0.3]), st.sampled_from([0.05, 0.4]), st.booleans()),
    min_size=5,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(_settings, _days, st.randoms(use_true_random=False), st.sampled_from([None, "or", "and"]))
def test_nothing_is_decided_twice(chosen, days, random, joined):
    """Each day is asked twice: a decision comes once, cools down, and is the same in any order of windows."""
    if joined is not None:
        plain = {key: value for key, value in chosen.items() if key != "cooldown"}
        names = sorted(RetrainSettings(**plain).is_set)
        chosen = chosen | {"when": f" {joined} ".join(names)}
    evidence, past, made, last = [], (), [], START
    for day, (loss, psi, labels) in enumerate(days):
        new = dataclasses.replace(drifted(day, psi), estimated_loss=loss, estimated_error=0.001)
        filled = dataclasses.replace(new, loss_sum=loss * new.rows, loss_squares=(loss**2 + 0.02) * new.rows)
        evidence.append(filled if labels else dataclasses.replace(new, labelled=0))
        for part in (0, 0.5):
            told = chosen | {"decisions": past, "last_retrain": last, "landed": str(day // 10)}
            decision = run(evidence, at=day + 1 + part, **told)
            assert decision == run(random.sample(evidence, len(evidence)), at=day + 1 + part, **told)
            if decision.kind == "skip":
                continue
            assert decision.cause == "again" or decision.time >= last + chosen["cooldown"]
            made.append(decision.id)
            stage = "looked" if decision.kind == "probe" else "rejected"
            past += (PastDecision(decision=decision, stage=stage),)
            last = decision.time if decision.kind == "retrain" else last
    assert len(set(made)) == len(made)
