"""The search after a refit that was refused: at once, once, and only where something fell."""

from __future__ import annotations

import dataclasses

import pytest
from test_policy import BAD, DAY, START, champion, ended, run

from raywf.core.retrain_settings import RetrainSettings
from raywf.policy.history import History, PastDecision
from raywf.policy.policy import decide
from raywf.testing import make_decision


def test_a_search_follows_at_once():
    """In the cooldown that the refit began, by the refit's id; it begins another, and is not followed."""
    refit = ended(18, "rejected", "refit", cause="regret")
    made = run(decisions=(refit,), last_retrain=START + 18 * DAY, at=18.1)
    assert (made.kind, made.cause, made.window, made.effort) == (
        "retrain",
        "again",
        refit.decision.id,
        "warm",
    )
    done = PastDecision(decision=made, stage="rejected")
    told = {"decisions": (refit, done), "last_retrain": made.time}
    assert run(**told, at=18.2).cause == "cooldown"
    assert run(BAD, **told, at=26).effort == "full"


@pytest.mark.parametrize(
    ("stage", "effort", "cause"),
    [
        ("failed", "refit", "loss"),
        ("promoted", "refit", "loss"),
        ("submitted-1", "refit", "loss"),
        ("rejected", "warm", "loss"),
        ("rejected", "refit", "fresh"),
        ("rejected", "refit", "schedule"),
        ("rejected", "refit", "request"),
        ("rejected", "refit", "growth"),
    ],
)
def test_nothing_follows_what_answered_nothing(stage, effort, cause):
    """Nor what was no refit, or was not judged."""
    past = (ended(18, stage, effort, cause=cause),)
    assert run(decisions=past, last_retrain=START + 18 * DAY, at=18.1).kind == "skip"


@pytest.mark.parametrize(("kind", "day"), [("rollback", 18.1), ("promote", 18.1)])
def test_nothing_follows_where_a_version_came_since(kind, day):
    """A refit that was taken back is noted as rejected too."""
    past = (ended(18, "rejected", "refit"),)
    told = {"last_retrain": START + 18 * DAY, "at": 18.2}
    assert run(decisions=past, **told).cause == "again"
    swap = PastDecision(decision=make_decision("s", kind=kind, time=START + day * DAY), stage="promoted")
    assert run(decisions=(*past, swap), **told).kind == "skip"


def test_what_was_refused_long_ago_is_asked_anew():
    """As long as the refit's cooldown goes on it has its search, later it must be wanted."""
    told = {"decisions": (ended(8, "rejected", "refit"),), "last_retrain": START + 8 * DAY}
    assert run(**told, at=14.9).cause == "again"
    assert run(**told, at=15.1).kind == "skip"


def test_who_has_a_price_for_the_loss_weighs_first():
    """By the look before it, which a search at once has none of."""
    past = (ended(18, "rejected", "refit"),)
    history = History(champion=champion(), decisions=past, since=START, last_retrain=START + 18 * DAY)
    asked = {"workflow": "w", "now": START + 18.1 * DAY, "min_labelled": 200}
    assert decide([], history, RetrainSettings(), **asked).cause == "again"
    assert decide([], history, RetrainSettings(usd_per_loss=1.0), **asked).cause == "cooldown"


def test_a_search_comes_after_its_refit_though_no_event_time_passes():
    """In the history of what was retrained."""
    refit = dataclasses.replace(ended(18, "rejected", "refit"))
    search = dataclasses.replace(ended(18, "promoted", "warm", cause="again"))
    for order in ((refit, search), (search, refit)):
        history = History(champion=champion(), decisions=order)
        assert history.ended == (search, refit)
        assert (history.vain, history.refused) == (0, 0)


def test_a_budget_that_is_spent_holds_it_back():
    """It is no exception to what retrainings may cost, nor to who says how much they do."""
    past = (dataclasses.replace(ended(18, "rejected", "refit"), usd=3.0),)
    told = {"decisions": past, "last_retrain": START + 18 * DAY, "at": 18.1}
    assert run(**told, usd_per_30d=4.0).cause == "again"
    assert run(**told, usd_per_30d=3.0).kind == "skip"
    history = History(champion=champion(), decisions=past, since=START)
    for effort in ("refit", "full"):
        settings = RetrainSettings(effort=effort, look=None)
        asked = {"workflow": "w", "now": START + 18.1 * DAY, "min_labelled": 200}
        assert decide([], history, settings, **asked).kind == "skip"
