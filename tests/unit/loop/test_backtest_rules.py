"""Policies by name, the best moments, and the words that refuse what is none."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.errors import SettingsError
from raywf.core.retrain_settings import BadWindowSettings
from raywf.core.settings import SpineSettings, Workflow
from raywf.loop.backtest.course import Step, mean_loss
from raywf.loop.backtest.oracle import best_moments
from raywf.loop.backtest.rules import Moment, make_rule
from raywf.loop.backtest.run import make_rules
from raywf.policy.history import History, PastDecision
from raywf.testing import make_decision

START = datetime(2020, 1, 1, tzinfo=UTC)
WORKFLOW = Workflow(name="w", task="binary", spine=SpineSettings(path="x.csv", label="y", event_time="t"))


def moment(day, *, losses=(), last=None):
    """A chance to decide, the last retraining so many days after the start."""
    past = ()
    if last is not None:
        made = make_decision("d", cause="x", time=START + timedelta(days=last))
        past = (PastDecision(decision=made, stage="promoted"),)
    history = History(
        champion=None, since=START, decisions=past, last_retrain=past[0].decision.time if past else None
    )
    return Moment(
        now=START + timedelta(days=day), evidence=(), history=history, losses=np.asarray(losses, dtype=float)
    )


def test_periodic_counts_from_the_last_change():
    """Come what may."""
    rule = make_rule("every 30d", WORKFLOW)
    found = [rule.decide(moment(d, last=x)).kind for d, x in ((29, None), (30, None), (59, 30), (60, 30))]
    assert found == ["skip", "retrain", "skip", "retrain"]
    assert make_rule("every 30d full", WORKFLOW).decide(moment(30)).effort == "full"


def test_adwin_sees_a_rise_and_not_a_fall():
    """It forgets once it has retrained."""
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0, 0.2, 500), rng.uniform(0.5, 0.7, 500)
    rule = make_rule("adwin", WORKFLOW)
    kinds = [rule.decide(moment(d, losses=part)).kind for d, part in enumerate((low, low, high, high, low))]
    assert kinds == ["skip", "skip", "retrain", "skip", "skip"]


def test_settings_with_blanks_stand_in_quotes():
    """Joined triggers are tried on history too."""
    told = make_rule("raywf when='loss or windows' windows='{bad: 2, of: 4}'", WORKFLOW).workflow.retrain
    assert (told.when, told.windows) == ("loss or windows", BadWindowSettings(bad=2, of=4))
    with pytest.raises(SettingsError, match="No closing quotation"):
        make_rule("raywf when='loss", WORKFLOW)


def test_settings_of_the_policy_are_read():
    """As in the workflow's file."""
    rule = make_rule("raywf look=45d regret=0.5 effort=refit", WORKFLOW)
    told = rule.workflow.retrain
    assert (told.look, told.regret, told.effort) == (timedelta(days=45), 0.5, "refit")
    assert rule.name == "raywf look=45d regret=0.5 effort=refit"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sometimes", "none of: raywf"),
        ("every", "none of: raywf"),
        ("every 30", "'45d'"),
        ("every 30d warm", "none of: raywf"),
        ("adwin much", "could not convert"),
        ("raywf regret", "KEY=VALUE"),
        ("raywf regret=-1", "above 0"),
        ("raywf regrets=1", "regrets"),
    ],
)
def test_what_is_no_policy_is_refused(text, told):
    """With what it could be."""
    with pytest.raises(SettingsError, match=told):
        make_rule(text, WORKFLOW)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raywf cron='99 * * * *'", "retrain.cron: five fields such as"),
        ("raywf when='loss and drift' drift=0.2", "a backtest has no drift, without which"),
        ("raywf when='(loss or data) and data' on_data=true", "a backtest has no data, without which"),
    ],
)
def test_what_cannot_be_played_is_refused(text, told):
    """Before the first model is trained; what may hold without it is played."""
    with pytest.raises(SettingsError, match=told):
        make_rules([text], WORKFLOW)
    assert make_rules(["raywf when='loss or drift' drift=0.2", "oracle"], WORKFLOW)[1] is None


def test_a_course_is_judged_over_time():
    """A step that is half as long counts half; one without rows not at all."""
    at = datetime(2024, 1, 1, tzinfo=UTC)

    def step(days, length, loss):
        start = at + timedelta(days=days)
        return Step(start=start, end=start + timedelta(days=length), version="1", rows=1, loss=loss)

    steps = (step(0, 10, 0.2), step(10, 10, None), step(20, 5, 0.8))
    assert mean_loss(steps) == pytest.approx((0.2 * 10 + 0.8 * 5) / 15)
    assert mean_loss(steps[1:2]) is None


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 10**6))
def test_the_best_moments_are_the_best(n, changes, seed):
    """Beside all choices."""
    matrix = np.triu(np.random.default_rng(seed).uniform(size=(n, n)))

    def total(moments):
        serving, lost = 0, 0.0
        for k in range(n):
            serving = k if k in moments else serving
            lost += matrix[serving, k]
        return lost

    least = min(
        total(some) for m in range(min(changes, n - 1) + 1) for some in itertools.combinations(range(1, n), m)
    )
    assert total(best_moments(matrix, changes=changes)) == pytest.approx(least)
