"""Refits as long as they pay: when one is due, how long it waits, what it is not."""

from __future__ import annotations

import dataclasses

import pytest
from test_policy import DAY, START, champion, ended, run, seen
from test_triggers import aged

from raywf.core.codec import encode
from raywf.core.journal import JournalEntry
from raywf.core.records import Check
from raywf.core.retrain_settings import RetrainSettings
from raywf.loop.decided import past_decisions
from raywf.policy.history import History
from raywf.policy.policy import choose_effort
from raywf.testing import make_verdict

LOOK = 7 * DAY


def helped(day, newer, *, error=0.001, version="1"):
    """A look at which the champion had nothing to regret; newer rows helped quick models by such a share."""
    former = 0.1 + 0.1 * newer
    return dataclasses.replace(seen(day, 0.1, 0.1, version=version), former=former, former_error=0.1 * error)


def brought(day=8, *, better=True, effort="refit"):
    """A champion's retraining, and the champion."""
    past = dataclasses.replace(ended(day, "promoted", effort), is_better=better)
    return past, dataclasses.replace(champion(), decision_id=past.decision.id)


def ask(*looks, past=(), at=20.0, **told):
    """Decide at a day, after the looks; the champion came with the last retraining or at the start."""
    last = max((p.decision.time for p in past), default=START)
    return run(at=at, look=LOOK, probes=looks, decisions=past, last_retrain=last, **told)


@pytest.mark.parametrize(
    ("look", "better", "due"),
    [
        (helped(16, 0.05), False, True),
        (helped(16, 0.011), False, True),
        (helped(16, 0.009), False, False),
        (helped(16, 0.05, error=0.03), False, False),
        (helped(16, 0.05, version="0"), False, False),
        (helped(7, 0.05), False, False),
        (dataclasses.replace(helped(16, 0.05), former_error=None), False, False),
        (helped(16, 0.0), True, True),
        (helped(7, 0.0), True, False),
    ],
)
def test_a_refit_is_due_where_newer_rows_are_known_to_help(look, better, due):
    """A look since the last change shows it surely; or the gate has, of the champion itself."""
    past, ours = brought(better=better)
    made = ask(look, past=(past,), champion=ours)
    assert (made.kind == "retrain") == due
    assert not due or (made.cause, made.window, made.effort) == ("fresh", "1", "refit")


def test_it_waits_for_a_look():
    """Right after a change nothing is known of the champion."""
    past, ours = brought(day=13)
    assert ask(past=(past,), champion=ours, at=20.1).cause == "look"


def test_from_the_second_that_brought_nothing_on_the_next_waits_twice_as_long():
    """And only a look can ask for it."""
    past, ours = brought()
    tries = [ended(day, "rejected", "refit", cause="fresh") for day in (16, 23)]
    tries = [
        dataclasses.replace(p, decision=dataclasses.replace(p.decision, window=w))
        for p, w in zip(tries, ("1", "1#2"), strict=True)
    ]
    once, twice = ({"past": (past, *tries[:count]), "champion": ours} for count in (1, 2))
    made = ask(helped(22, 0.05), at=23.1, **once)
    assert (made.cause, made.window) == ("fresh", "1#2")
    assert ask(helped(22, 0.0), at=23.1, **once).kind != "retrain"
    assert ask(helped(29, 0.05), at=36.9, **twice).kind != "retrain"
    assert ask(helped(29, 0.05), at=37.1, **twice).window == "1#3"


@pytest.mark.parametrize("told", [{"effort": "refit"}, {"look": None}, {"regret": None}])
def test_who_sets_the_effort_or_no_looks_has_none(told):
    """Refits that nothing is wrong for are part of doing what pays."""
    assert "fresh" in RetrainSettings().is_set
    assert "fresh" not in RetrainSettings(**told).is_set


def test_what_it_did_not_bring_tells_nothing_of_the_next():
    """Neither the effort nor the back-off rises by a cheap try, and what was seen before it stands."""
    past, ours = brought(effort="full")
    tries = [ended(day, "rejected", "refit", cause="fresh") for day in (16, 24, 40)]
    told = {"champion": ours, "since": START, "last_retrain": START + 40 * DAY}
    history = History(decisions=(past, *tries), **told)
    assert (history.vain, history.refused) == (0, 0)
    assert choose_effort(history, RetrainSettings()) == "refit"
    assert history.last_tried == START + 40 * DAY
    assert history.last_change == START + 8 * DAY
    real = (*history.decisions, ended(50, "rejected", "refit"))
    history = dataclasses.replace(history, decisions=real, last_retrain=START + 50 * DAY)
    assert (history.vain, history.refused) == (1, 1)
    assert choose_effort(history, RetrainSettings()) == "warm"
    assert history.last_change == START + 50 * DAY


def test_one_that_searched_is_counted():
    """Where the history has outgrown the configurations it is a warm search, and no cheap try."""
    past, ours = brought(effort="full")
    searched = ended(16, "rejected", "warm", cause="fresh")
    history = History(champion=ours, decisions=(past, searched))
    assert (history.vain, history.refused) == (1, 1)
    assert choose_effort(history, RetrainSettings()) == "full"


def test_it_stays_cheap_where_searches_were_in_vain():
    """A refit, where what answers a fall would be a full search."""
    past, ours = brought()
    tries = (ended(9, "rejected", "refit"), ended(10, "rejected", "warm", cause="again"))
    told = {"past": (past, *tries), "champion": ours}
    assert choose_effort(History(decisions=told["past"], champion=ours), RetrainSettings()) == "full"
    made = ask(helped(18, 0.05), **told)
    assert (made.cause, made.effort) == ("fresh", "refit")


def test_refits_go_on_where_looks_tell_how_the_history_has_grown():
    """Three in a row ask for a search only where nobody knows by how much it has."""
    past = tuple(ended(day, "promoted", "refit") for day in (1, 2, 3))
    ours = dataclasses.replace(champion(), decision_id=past[-1].decision.id)
    history = History(champion=ours, decisions=past)
    assert choose_effort(history, RetrainSettings()) == "warm"
    look = dataclasses.replace(seen(5, 0.1, 0.1), growth=1.1)
    told = dataclasses.replace(history, probes=(look,))
    assert choose_effort(told, RetrainSettings()) == "refit"
    assert choose_effort(told, RetrainSettings(growth=None)) == "warm"


@pytest.mark.parametrize(
    ("outcome", "low", "better"), [("accept", 0.01, True), ("accept", -0.01, False), ("reject", 0.01, False)]
)
def test_a_verdict_is_better_by_its_first_check(outcome, low, better):
    """No worse and newer is accepted too, and is not better."""
    check = Check(name="gain", figure=low + 0.01, low=low, high=low + 0.02, bound=0.0, passed=True)
    verdict = make_verdict(outcome, checks=(check,))
    assert verdict.is_better == better
    assert not dataclasses.replace(verdict, against="baseline").is_better  # there was none to be better than
    assert not dataclasses.replace(verdict, checks=()).is_better


def test_a_champion_by_hand_has_only_its_looks():
    """No retraining brought it."""
    assert ask(helped(16, 0.0), champion=aged(1)).kind != "retrain"
    assert ask(helped(16, 0.05), champion=aged(1)).cause == "fresh"


def test_it_does_not_go_on_where_another_refit_was_in_vain():
    """What the gate had shown of the champion is no longer all that is known."""
    past, ours = brought(day=4)
    tried = ended(5, "rejected", "refit")
    assert ask(helped(19, 0.0), past=(past,), champion=ours).cause == "fresh"
    assert ask(helped(19, 0.0), past=(past, tried), champion=ours).kind != "retrain"


def test_a_look_at_a_few_rows_asks_for_nothing():
    """The gate could not judge by them."""
    few = dataclasses.replace(helped(16, 0.05), rows=199)
    past, ours = brought()
    assert ask(few, past=(past,), champion=ours).kind != "retrain"
    assert ask(dataclasses.replace(few, rows=200), past=(past,), champion=ours).cause == "fresh"


def test_configurations_that_a_search_did_not_better_wait_for_a_further_root_of_two():
    """Though a refit was good since; a search that was good begins anew."""
    past, ours = brought(day=1, effort="full")
    searched = ended(2, "rejected", "warm", cause="fresh")
    refit = ended(3, "promoted", "refit")
    ours = dataclasses.replace(ours, decision_id=refit.decision.id)
    look = dataclasses.replace(seen(5, 0.1, 0.1), growth=2.5)
    history = History(champion=ours, decisions=(past, searched, refit), probes=(look,))
    assert choose_effort(history, RetrainSettings()) == "refit"
    more = dataclasses.replace(history, probes=(dataclasses.replace(look, growth=2.9),))
    assert choose_effort(more, RetrainSettings()) == "warm"
    without = dataclasses.replace(history, decisions=(past, refit))
    assert choose_effort(without, RetrainSettings()) == "warm"


@pytest.mark.parametrize(("against", "better"), [("1", True), ("baseline", False)])
def test_the_journal_tells_what_was_better(against, better):
    """By the verdict that is in it."""
    made = ended(8, "promoted", "refit").decision
    check = Check(name="gain", figure=0.1, low=0.05, high=0.2, bound=0.0, passed=True)
    verdict = make_verdict(against=against, checks=(check,))
    entries = [
        JournalEntry(decision_id=made.id, stage=stage, time=made.time, wall_time=made.time, figures=figures)
        for stage, figures in (("gated", encode(verdict)), ("promoted", {"version": "2"}))
    ]
    (told,) = past_decisions([made], entries)
    assert (told.stage, told.is_better) == ("promoted", better)
