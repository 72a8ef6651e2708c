"""Regrets add up, as long as they are no luck."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.probe import Probe
from raywf.core.settings import RetrainSettings
from raywf.policy.regret import judge_regret

START = datetime(2020, 1, 1, tzinfo=UTC)
SETTINGS = RetrainSettings(regret=0.02)


def look(week, regret, *, error=0.001, rows=1000, version="1"):
    """A look with a regret in shares of a loss of 0.2."""
    return Probe(
        version=version,
        since=START,
        time=START + timedelta(weeks=week),
        rows=rows,
        champion=0.2,
        quick=0.2 * (1 - regret),
        error=0.2 * error,
        cpu_s=1.0,
    )


@pytest.mark.parametrize(
    ("looks", "due"),
    [
        ([], False),
        ([look(1, 0.031)], True),
        ([look(1, 0.029)], False),
        ([look(1, 0.021), look(2, 0.021)], True),
        ([look(week, 0.009) for week in range(1, 9)], False),
        ([look(1, -0.5), look(2, 0.01)], False),
        ([look(1, -0.5), look(2, 0.031)], True),
        ([look(1, 0.03, error=0.2)], False),
        ([look(1, 0.03, rows=0)], False),
        ([look(1, 0.03, version="0")], False),
        ([look(0, 0.03)], False),
    ],
)
def test_regret_adds_up(looks, due):
    """Of this version, after the change, from rows that tell; what was regained is not held against it."""
    assert judge_regret(looks, "1", SETTINGS, since=START).due is due


def test_without_a_limit_nothing_is_due():
    """``regret: null`` leaves looks out."""
    assert not judge_regret([look(1, 0.9)], "1", RetrainSettings(regret=None), since=START).due


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-0.5, 0.9)), max_size=8, unique_by=lambda x: x[0]))
def test_the_order_in_which_looks_are_told_does_not_matter(found):
    """They have times."""
    looks = [look(week, regret) for week, regret in found]
    one, other = (judge_regret(some, "1", SETTINGS, since=START) for some in (looks, looks[::-1]))
    assert one == other


def test_a_model_as_good_as_the_quick_one_is_seldom_retrained():
    """Of 2,000 looks whose regret is chance alone at most one in five is due."""
    rng = np.random.default_rng(0)
    due = [
        judge_regret([look(1, e, error=0.05)], "1", SETTINGS, since=START).due
        for e in rng.normal(0, 0.05, 2000)
    ]
    assert np.mean(due) < 0.22
