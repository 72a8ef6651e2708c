"""What a prediction earns: the bound on its mean, and when a fall asks for a retraining."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_policy import DAY, START, champion, window

from raywf.core.retrain_settings import RetrainSettings
from raywf.policy.history import History
from raywf.policy.policy import decide
from raywf.policy.value import radius, sum_up, upper_bound


def paid(day, values):
    """A day of rows that earned something."""
    made, values = window(day, 0.1, rows=max(1, len(values))), np.asarray(values, dtype=float)
    mean = float(values.mean()) if len(values) else None
    squares = float((values**2).sum())
    return dataclasses.replace(made, value_mean=mean, value_rows=len(values), value_squares=squares)


def earning(*means, deviation=1.0, rows=500):
    """A day a mean: half of the rows earn more and half less."""
    half = [deviation, -deviation] * (rows // 2)
    return [paid(day, np.asarray(half) + mean) for day, mean in enumerate(means)]


def run(evidence, *, drop=0.1, since=START, **history):
    """Decide when the last window has ended."""
    told = RetrainSettings(value_drop=drop, look=None)
    past = History(champion=champion(), since=since, **history)
    at = START + len(evidence) * DAY
    return decide(evidence, past, told, workflow="w", now=at, min_labelled=500)


CASES = [
    (earning(*[10.0] * 15), "quiet"),
    (earning(*[10.0] * 5, *[8.5] * 10), "value"),
    (earning(*[10.0] * 5, *[9.2] * 10), "quiet"),
    (earning(*[10.0] * 40, *[8.5] * 5), "value"),
    (earning(*[10.0] * 5, *[8.5] * 10, deviation=400.0), "quiet"),
    (earning(*[-10.0] * 5, *[-12.0] * 10), "value"),
    (earning(*[-10.0] * 5, *[-9.0] * 10), "quiet"),
    (earning(*[10.0] * 5, *[8.5] * 10, rows=20), "labels"),
    ([dataclasses.replace(e, value_rows=0) for e in earning(*[10.0] * 5, *[8.5] * 10)], "quiet"),
    ([dataclasses.replace(e, labelled=10) for e in earning(*[10.0] * 5, *[8.5] * 10)], "labels"),
]


@pytest.mark.parametrize(("evidence", "cause"), CASES)
def test_cases(evidence, cause):
    """A fall by more than the share, beyond doubt, in windows that are mostly labelled."""
    assert run(evidence).cause == cause


def test_it_is_no_trigger_unless_it_is_set():
    """However far it falls."""
    assert run(earning(*[10.0] * 5, *[1.0] * 10), drop=None).cause == "quiet"


def test_the_level_stays_that_of_the_first_windows():
    """After a retraining that brought nothing only what came since is judged, by the same level."""
    fallen = earning(*[10.0] * 5, *[8.5] * 20)
    decision = run(fallen, last_retrain=START + 12 * DAY)
    assert decision.cause == "value"
    assert "10 in the champion's first windows" in decision.reasons[0]
    assert "(6,500 values)" in decision.reasons[0]
    assert run(fallen[:13], last_retrain=START + 5.5 * DAY).window == "2020-01-14T00:00:00Z"


def test_the_reason_tells_the_figures():
    """Mean, bound, limit and level."""
    (reason,) = run(earning(*[10.0] * 5, *[8.5] * 10)).reasons
    assert "below 8.926 it is worth a retraining" in reason
    assert "a fall by 10%" in reason


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), min_size=1, max_size=6))
def test_sums_are_those_of_the_rows(days):
    """Whatever the windows."""
    sums, values = sum_up([paid(i, v) for i, v in enumerate(days)]), np.concatenate(days)
    assert sums.rows == len(values)
    assert sums.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
    assert sums.deviation == pytest.approx(values.std(), rel=1e-4, abs=1.0)


@given(st.integers(100, 10**6), st.floats(1e-6, 0.2), st.integers(50, 10**5))
def test_the_radius_shrinks_with_rows(rows, alpha, tuned):
    """It is never narrower than that of one look at a time that was fixed before; wider for less doubt."""
    here = radius(rows, alpha=alpha, tuned_for=tuned)
    assert radius(2 * rows, alpha=alpha, tuned_for=tuned) < here
    assert here > NormalDist().inv_cdf(1 - alpha) / math.sqrt(rows)
    surer, wide = (radius(rows, alpha=a, tuned_for=rows) for a in (alpha / 2, alpha))
    assert surer > wide


def test_looking_at_each_window_raises_few_false_alarms():
    """Also where one row in twenty earns all: of 100 streams of 30 windows at most alpha's share."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(100):
        days = [paid(i, (rng.random(100) < 0.05) * 20.0) for i in range(33)]
        bounds = (
            upper_bound(days[3:n], deviation=sum_up(days[:n]).deviation, alpha=0.05, tuned_for=200)
            for n in range(5, 34)
        )
        alarms += any(bound < 1 for bound in bounds)
    assert alarms <= 5
