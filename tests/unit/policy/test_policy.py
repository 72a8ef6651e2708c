"""The retraining policy: a table of cases, and what holds in all."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.clock import format_time
from raywf.core.probe import Probe, look_since
from raywf.core.records import Decision, Evidence
from raywf.core.settings import RetrainSettings
from raywf.policy.history import History, PastDecision
from raywf.policy.policy import choose_effort, decide
from raywf.policy.question import numbered
from raywf.testing import make_decision, make_version

DAY = timedelta(days=1)
START = datetime(2020, 1, 1, tzinfo=UTC)


def champion(loss=0.1, rows=5000, version="1"):
    """A model version with its level."""
    return make_version(version, loss=loss, loss_rows=rows, created=START)


def window(day, loss, *, rows=400, labelled=None, version="1"):
    """One day's evidence; losses lie around their mean."""
    n = rows if labelled is None else labelled
    return Evidence(
        version=version,
        start=START + day * DAY,
        end=START + (day + 1) * DAY,
        rows=rows,
        labelled=n,
        loss_sum=n * loss,
        loss_squares=n * (loss * loss + 0.02),
    )


GOOD = [window(d, 0.1) for d in range(20)]
BAD = [window(d, 0.1 if d < 5 else 0.3) for d in range(20)]


def run(evidence=GOOD, *, at=20.0, every=None, cron=None, look=None, usd_per_30d=None, **history):
    """Decide at a day."""
    past = {"champion": champion(), "since": START} | history
    return decide(
        evidence,
        History(**past),
        RetrainSettings(every=every, cron=cron, look=look, usd_per_30d=usd_per_30d),
        workflow="w",
        now=START + at * DAY,
        min_labelled=200,
    )


def looked(day, cause="look"):
    """A look that was decided on at a day."""
    made = make_decision(f"look-{day}", kind="probe", cause=cause, time=START + day * DAY)
    return PastDecision(decision=made, stage="looked")


def after_a_look(quick):
    """History after the look that a rise asked for at day 20: the champion's loss was 0.1 then."""
    return {"look": 7 * DAY, "decisions": (looked(20, "rise"),), "probes": (seen(20, 0.1, quick),)}


def seen(day, champion_loss, quick, *, rows=1000, error=0.001, version="1"):
    """What a look at a day found."""
    return Probe(
        version=version,
        since=START,
        time=START + day * DAY,
        rows=rows,
        champion=champion_loss,
        quick=quick,
        error=error,
        cpu_s=1.0,
    )


CASES = [
    ({}, "skip", "quiet"),
    ({"evidence": BAD}, "retrain", "loss"),
    ({"evidence": BAD, "running": True}, "skip", "running"),
    ({"evidence": BAD, "at": 6.9}, "skip", "cooldown"),
    ({"evidence": BAD, "last_retrain": START + 15 * DAY}, "skip", "cooldown"),
    ({"evidence": []}, "skip", "labels"),
    ({"evidence": [window(0, 0.9, labelled=150)]}, "skip", "labels"),
    ({"evidence": [window(d, 0.9, labelled=100) for d in range(20)]}, "skip", "labels"),
    ({"evidence": [window(d, 0.9, version="0") for d in range(20)]}, "skip", "labels"),
    ({"champion": champion(loss=None)}, "skip", "quiet"),
    ({"evidence": BAD, "champion": champion(loss=None)}, "retrain", "loss"),
    ({"evidence": BAD, "champion": champion(loss=0.3)}, "skip", "quiet"),
    ({"evidence": BAD, "champion": champion(loss=0.25, rows=3)}, "skip", "quiet"),
    ({"champion": None}, "skip", "champion"),
    ({"champion": None, "requests": {"r1": ""}}, "retrain", "request"),
    ({"requests": {"r1": ""}, "at": 1.0}, "retrain", "request"),
    ({"requests": {"r1": ""}, "running": True}, "skip", "running"),
    ({"every": 14 * DAY, "evidence": []}, "retrain", "schedule"),
    ({"every": 30 * DAY}, "skip", "quiet"),
    ({"every": 2 * DAY, "at": 3.0}, "skip", "cooldown"),
    ({"cron": "0 3 * * 1"}, "retrain", "schedule"),
    ({"cron": "0 3 1 6 *"}, "skip", "quiet"),
    ({"evidence": BAD, "every": 14 * DAY}, "retrain", "loss"),
    ({"look": 7 * DAY}, "probe", "look"),
    ({"look": 7 * DAY, "evidence": []}, "probe", "look"),
    ({"look": 7 * DAY, "evidence": BAD}, "probe", "rise"),
    ({"look": 30 * DAY, "evidence": BAD}, "probe", "rise"),
    ({"look": 30 * DAY, "evidence": BAD, "decisions": (looked(20, "rise"),)}, "retrain", "loss"),
    ({"evidence": BAD, **after_a_look(0.1)}, "skip", "fallen-vain"),
    ({"evidence": BAD, **after_a_look(0.101)}, "skip", "fallen-vain"),
    ({"evidence": BAD, **after_a_look(0.09)}, "retrain", "loss"),
    ({"evidence": BAD, **after_a_look(0.12)}, "retrain", "loss"),
    ({"look": 30 * DAY}, "skip", "quiet"),
    ({"look": 7 * DAY, "decisions": (looked(15),)}, "skip", "quiet"),
    ({"look": 7 * DAY, "decisions": (looked(12),)}, "probe", "look"),
    ({"look": 7 * DAY, "decisions": (looked(15),), "probes": (seen(15, 0.1, 0.08),)}, "retrain", "regret"),
    ({"look": 7 * DAY, "decisions": (looked(15),), "probes": (seen(15, 0.1, 0.1),)}, "skip", "quiet"),
    ({"look": 7 * DAY, "decisions": (looked(15),), "probes": (seen(-1, 0.1, 0.01),)}, "skip", "quiet"),
    ({"look": 7 * DAY, "at": 3.0}, "skip", "cooldown"),
]


@pytest.mark.parametrize(("case", "kind", "cause"), CASES)
def test_cases(case, kind, cause):
    """What is decided in each situation, and that a reason is given."""
    decision = run(**case)
    assert (decision.kind, decision.cause) == (kind, cause)
    assert decision.reasons


def test_windows_wait_until_their_labels_are_a_fair_sample():
    """A rise in the labels that came soon is believed when the late ones could be there."""
    young = [dataclasses.replace(w, maturity_s=20 * DAY.total_seconds()) for w in BAD]
    assert run(young, at=25).cause == "quiet"
    assert run(young, at=39).cause == "loss"
    assert run(young, at=39, last_retrain=START + 28 * DAY).cause == "loss"  # rose on days that waited then
    assert run(young, at=39, last_retrain=START + 39.5 * DAY).cause == "cooldown"


def test_the_same_evidence_gives_the_same_id_at_another_time():
    """An hour later nothing new is known: the decision is the same one."""
    assert run(BAD).id == run(BAD, at=20.04).id


def test_what_was_decided_is_not_decided_again():
    """Even where the cooldown is over and no retraining came of it."""
    first = run(BAD)
    stopped = PastDecision(decision=first, stage="failed", is_stopped=True)
    again = run(BAD, decisions=(stopped,))
    assert (again.kind, again.cause) == ("skip", "fallen-decided")
    assert "decided before" in again.reasons[0]


@pytest.mark.parametrize(("failures", "hours"), [(1, 1), (2, 2), (3, 4), (20, 128)])
def test_what_failed_is_tried_again_soon(failures, hours):
    """It begins no cooldown, and what it was to answer is still known; an outage does not make it larger."""
    first = run(BAD)
    tries = [dataclasses.replace(first, id=str(n), window=numbered(first.window, n)) for n in range(failures)]
    past = tuple(PastDecision(decision=made, stage="failed") for made in tries)
    wait = timedelta(hours=hours) / DAY
    held = run(BAD, decisions=past, at=20 + 0.9 * wait)
    assert (held.cause, held.window) == ("fallen-failed", format_time(START + (20 + wait) * DAY))
    again = run(BAD, decisions=past, at=20 + wait)
    assert (again.kind, again.cause, again.effort) == ("retrain", "loss", "refit")
    assert again.window == numbered(first.window, failures)


def test_a_request_is_served_once():
    """With what the user says of it; the next one waits its turn."""
    requests = {"r1": "new prices  since\nMonday", "r2": ""}
    first = run(requests=requests)
    then = run(requests=requests, decisions=(PastDecision(decision=first, stage="done"),))
    assert (first.window, then.window) == ("r1", "r2")
    assert first.reasons == ("asked for by request r1", "new prices since Monday")
    assert then.reasons == ("asked for by request r2",)


def test_a_slot_of_the_schedule_is_one_decision():
    """The id does not move while the slot waits."""
    ids = {run([], cron="0 3 * * 1", at=20 + h / 24).id for h in range(20)}
    assert len(ids) == 1


def test_the_reason_tells_the_figures():
    """The bound, the level and the rows."""
    (reason,) = run(BAD).reasons
    assert "0.1000 at promotion" in reason
    assert "8000 labelled rows" in reason


def test_evidence_from_before_the_promotion_does_not_count():
    """Rows that were answered before are another matter."""
    assert run(BAD[:18], since=START + 18 * DAY, at=30).cause == "labels"


_evidence = st.lists(
    st.builds(
        window,
        st.integers(0, 40),
        st.floats(0, 1).map(lambda x: round(x, 2)),
        rows=st.integers(100, 500),
        labelled=st.integers(0, 100),
    ),
    max_size=15,
    unique_by=lambda e: e.start,
)
_history = st.fixed_dictionaries(
    {
        "champion": st.none() | st.builds(champion, st.none() | st.floats(0, 1)),
        "since": st.integers(0, 30).map(lambda d: START + d * DAY),
        "running": st.booleans(),
        "last_retrain": st.none() | st.integers(0, 40).map(lambda d: START + d * DAY),
        "requests": st.dictionaries(st.text("ab", min_size=1, max_size=2), st.text(), max_size=2),
    }
)
_schedule = st.fixed_dictionaries(
    {"every": st.none() | st.just(3 * DAY), "cron": st.none() | st.just("0 3 * * *"), "at": st.floats(0, 60)}
)


@settings(max_examples=150, deadline=None)
@given(_evidence, _history, _schedule)
def test_what_always_holds(evidence, history, schedule):
    """Never while one runs; within the cooldown only by request; the same question has the same answer."""
    decision = run(evidence, **history, **schedule)
    assert decision == run(evidence[::-1], **history, **schedule)
    if decision.kind == "retrain":
        assert not history["running"]
        last = max(t for t in (history["since"], history["last_retrain"]) if t)
        assert decision.cause == "request" or decision.time >= last + RetrainSettings().cooldown


def test_a_decision_is_a_record():
    """It carries the workflow and the time it was asked at."""
    decision = run()
    assert isinstance(decision, Decision)
    assert (decision.workflow, decision.time) == ("w", START + 20 * DAY)


def ended(day, stage, effort, *, cause="loss"):
    """A retraining that came to an end."""
    made = make_decision(
        f"{day}-{stage}", cause=cause, window=str(day), time=START + day * DAY, effort=effort
    )
    return PastDecision(decision=made, stage=stage)


@pytest.mark.parametrize(
    ("past", "expected"),
    [
        ((), "refit"),
        (((1, "promoted", "full"),), "refit"),
        (((1, "promoted", "full"), (2, "rejected", "refit")), "warm"),
        (((2, "rejected", "refit"), (3, "failed", "warm")), "warm"),
        (((1, "promoted", "full"), (2, "rejected", "warm")), "full"),
        (((1, "promoted", "full"), (2, "failed", "refit"), (3, "failed", "refit")), "refit"),
        (((2, "rejected", "refit"), (3, "failed", "warm"), (4, "rejected", "full")), "full"),
        (((1, "rejected", "refit"), (2, "promoted", "warm")), "refit"),
        (tuple((d, "promoted", "refit") for d in range(1, 4)), "warm"),
        ((*((d, "promoted", "refit") for d in range(1, 4)), (4, "promoted", "warm")), "refit"),
        (((1, "rejected", "refit"), (2, "submitted-1", "warm")), "warm"),
    ],
)
def test_effort_grows_with_vain_retrainings(past, expected):
    """And falls back after a promotion; refits alone do not go on for ever. What failed was not judged."""
    history = History(champion=champion(), decisions=tuple(ended(*p) for p in past))
    assert choose_effort(history, RetrainSettings()) == expected
    assert choose_effort(history, RetrainSettings(effort="full")) == "full"


def test_a_search_whose_version_was_promoted_by_hand_gave_a_champion():
    """What has grown since is counted from it, and it was no search in vain."""
    past = (ended(1, "promoted", "full"), ended(5, "rejected", "warm"))
    by_hand = make_decision("h", kind="promote", cause="hand", time=START + 6 * DAY)
    past += (PastDecision(decision=by_hand, stage="promoted"),)
    mine = dataclasses.replace(champion(), decision_id=past[1].decision.id)
    looks = tuple(
        Probe(
            version="1",
            since=START,
            time=START + d * DAY,
            rows=100,
            champion=0.1,
            quick=0.1,
            error=0.01,
            growth=3.0,
            cpu_s=1.0,
        )
        for d in (4, 7)
    )
    history = History(champion=mine, decisions=past, probes=looks)
    assert history.searched_in_vain == 0
    assert history.growth_since_search == 3.0


def test_a_version_that_was_promoted_by_hand_was_not_in_vain():
    """Though the gate had refused it, or another one; what is refused after it is."""
    past = (ended(1, "promoted", "full"), ended(2, "rejected", "refit"))
    by_hand = make_decision("h", kind="promote", cause="hand", time=START + 3 * DAY)
    past += (PastDecision(decision=by_hand, stage="promoted"),)
    assert choose_effort(History(champion=champion(), decisions=past), RetrainSettings()) == "refit"
    past += (ended(4, "rejected", "refit"),)
    assert choose_effort(History(champion=champion(), decisions=past), RetrainSettings()) == "warm"


@pytest.mark.parametrize(("refused", "days"), [(2, 7), (3, 14), (4, 28), (5, 56), (9, 56)])
def test_what_is_in_vain_again_and_again_is_done_less_often(refused, days):
    """The cooldown is twice as long after each from the third on, up to eight times; no request is held."""
    past = tuple(ended(d, "rejected", "full") for d in range(10 - refused, 10))
    history = {"decisions": past, "last_retrain": START + 9 * DAY}
    fallen = [window(d, 0.1 if d < 5 else 0.3) for d in range(120)]
    assert run(fallen, at=9 + days + 0.1, **history).kind == "retrain"
    assert run(fallen, at=9.5, requests={"r": ""}, **history).cause == "request"
    calm = [window(d, 0.1) for d in range(120)]
    for at in (9.1, 9 + days - 0.1):
        held = run(calm, at=at, **history)
        assert held.cause == ("backoff" if refused > 2 else "cooldown")
        until = f"until {format_time(START + (9 + days) * DAY)}"
        assert held.reasons[0].endswith(until)
    if refused > 2:
        held = run(fallen, at=9 + days - 0.1, **history)
        assert held.cause == "fallen-backoff"
        assert f"but {refused} retrainings in a row were in vain: backing off {until}" in held.reasons[0]


HAND = make_decision("h", kind="promote", cause="hand", time=START + 9.5 * DAY)


@pytest.mark.parametrize(
    ("told", "days"),
    [
        ({"decisions": tuple(ended(d, "failed", "full") for d in range(4, 10))}, 7),
        ({"decisions": (*(ended(d, "rejected", "full") for d in (6, 7, 9)), ended(8, "failed", "full"))}, 14),
        ({"decisions": tuple(ended(d, "rejected", "full", cause="request") for d in range(4, 10))}, 7),
        (
            {
                "decisions": (
                    *(ended(d, "rejected", "full") for d in range(4, 9)),
                    ended(9, "promoted", "full"),
                )
            },
            7,
        ),
        (
            {
                "decisions": (
                    *(ended(d, "rejected", "full") for d in range(4, 10)),
                    PastDecision(decision=HAND, stage="promoted"),
                )
            },
            7,
        ),
    ],
)
def test_what_does_not_make_the_cooldown_longer(told, days):
    """What was not judged, what somebody asked for, and what was before a new champion."""
    calm = [window(d, 0.1) for d in range(120)]
    told |= {"last_retrain": START + 9 * DAY}
    assert run(calm, at=9 + days + 0.1, **told).cause == "quiet"
    assert run(calm, at=9 + days - 0.1, **told).cause == ("backoff" if days > 7 else "cooldown")


def test_a_budget_that_is_spent_holds_back_what_nobody_asked_for():
    """Until so much of it is thirty days ago that there is room."""
    past = tuple(
        dataclasses.replace(ended(d, "promoted", "refit"), usd=usd)
        for d, usd in ((1, 4.0), (8, 3.0), (15, 2.0))
    )
    history = {"decisions": past, "last_retrain": START + 15 * DAY}
    fallen = [window(d, 0.1 if d < 5 else 0.3) for d in range(120)]
    asked = partial(run, fallen, **history)
    assert asked(at=23, usd_per_30d=9.5).kind == "retrain"
    held = asked(at=23, usd_per_30d=9.0)
    assert (held.kind, held.cause) == ("skip", "fallen-budget")
    assert "but the retrainings of the last 30 days cost $9.00, of $9.00 that they may" in held.reasons[0]
    assert held.reasons[0].endswith(f"waiting until {format_time(START + 31 * DAY)}")
    assert run(at=23, usd_per_30d=9.0, **history).cause == "budget"
    assert asked(at=31.1, usd_per_30d=9.0).kind == "retrain"
    assert format_time(START + 38 * DAY) in asked(at=23, usd_per_30d=3.0).reasons[0]
    assert asked(at=23, usd_per_30d=9.0, requests={"r": ""}).cause == "request"


def test_regret_right_after_a_refit_asks_for_a_search():
    """The quick model had no newer rows than the refit: the configurations are at fault."""
    past = (ended(1, "promoted", "full"), ended(10, "promoted", "refit"))
    history = {"champion": champion(), "decisions": past, "since": START + 10 * DAY}
    first = History(**history, last_retrain=START + 10 * DAY, probes=(seen(17, 0.1, 0.05),))
    assert choose_effort(first, RetrainSettings()) == "warm"
    later = dataclasses.replace(first, probes=(seen(17, 0.1, 0.1), seen(24, 0.1, 0.05)))
    assert choose_effort(later, RetrainSettings()) == "refit"
    assert choose_effort(first, RetrainSettings(effort="refit")) == "refit"


def grown(day, growth, version="1"):
    """A look that found so many times the rows that a champion can have seen."""
    return dataclasses.replace(seen(day, 0.1, 0.1, version=version), growth=growth)


@pytest.mark.parametrize(
    ("past", "looks", "times"),
    [
        ((), (), 1.0),
        ((), ((5, 1.4), (7, 1.6)), 1.6),
        (((10, "promoted", "refit"),), ((5, 1.2), (10, 1.5), (17, 1.4)), 2.1),
        (((10, "promoted", "refit"), (12, "promoted", "refit")), ((10, 1.5), (17, 1.4)), 2.1),
        (((10, "promoted", "reweight"),), ((10, 1.5), (17, 1.4)), 2.1),
        (((10, "promoted", "refit"),), ((10, 1.5, "0"), (17, 1.4), (18, 5.0, "2")), 2.1),
        (((10, "rejected", "refit"),), ((10, 1.5), (17, 1.9)), 1.9),
        (((10, "promoted", "warm"), (20, "promoted", "refit")), ((10, 3.0), (20, 1.5), (27, 1.2)), 1.8),
    ],
)
def test_configurations_are_outgrown_by_twice_the_rows(past, looks, times):
    """Counted over the refits since the last search; where growth does not count, nor does this."""
    decisions, probes = tuple(ended(*p) for p in past), tuple(grown(*look) for look in looks)
    brought = [p.decision.id for p in decisions if p.stage == "promoted"]
    ours = dataclasses.replace(champion(), decision_id=brought[-1] if brought else "")
    history = History(champion=ours, decisions=decisions, probes=probes)
    assert history.growth_since_search == pytest.approx(times)
    if not history.vain:
        assert choose_effort(history, RetrainSettings()) == ("warm" if times >= 2 else "refit")
    assert choose_effort(history, RetrainSettings(growth=None)) == ("warm" if history.vain else "refit")


def test_growth_is_counted_back_from_the_retraining_that_made_the_champion():
    """Not from later ones, whose versions somebody took out again."""
    past = (ended(5, "promoted", "full"), ended(10, "promoted", "refit"), ended(20, "promoted", "refit"))
    looks = (grown(10, 1.2), grown(20, 1.3, "2"), grown(27, 1.8))
    back = dataclasses.replace(champion(), decision_id=past[0].decision.id)
    assert History(champion=back, decisions=past, probes=looks).growth_since_search == pytest.approx(1.8)


def test_a_look_tells_from_when_on_labels_are_new_to_it():
    """Its window is the look before, or the champion's coming; the id stands while it waits."""
    first = run(look=7 * DAY)
    assert first.window == "2020-01-01T00:00:00Z"
    assert run(look=7 * DAY, at=20.5).id == first.id
    told = run(look=7 * DAY, decisions=(looked(12),), probes=(seen(12, 0.1, 0.1),))
    assert told.window == "2020-01-13T00:00:00Z"


def test_a_look_at_too_few_rows_is_followed_by_one_at_more():
    """What is new adds up over the looks, each of which has an id of its own."""
    few = dataclasses.replace(seen(12, 0.1, 0.1, rows=0), since=START, thin=True)
    first = dataclasses.replace(looked(12).decision, window="2020-01-01T00:00:00Z")
    past = PastDecision(decision=first, stage="looked")
    found = run(look=7 * DAY, decisions=(past,), probes=(few,))
    assert (found.kind, found.window) == ("probe", "2020-01-01T00:00:00Z#2")
    assert look_since(found) == START
    assert run(look=10 * DAY, decisions=(past,), probes=(few,)).kind == "skip"
    young = dataclasses.replace(few, thin=False)  # it was the old rows that were too few: they will be more
    assert run(look=7 * DAY, decisions=(past,), probes=(young,)).window == "2020-01-13T00:00:00Z"


def test_a_look_before_a_falls_labels_came_does_not_answer_it():
    """The last windows' labels need five days: the look of a day before they were told saw few of them."""
    slow = [dataclasses.replace(e, maturity_s=5 * 86400.0) for e in BAD]
    told = {"look": 14 * DAY, "decisions": (looked(20),), "probes": (seen(20, 0.3, 0.3),)}
    found = run(slow, at=25, **told)
    assert (found.kind, found.cause) == ("probe", "rise")
    assert run(BAD, at=25, **told).kind == "skip"
