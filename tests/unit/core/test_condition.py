"""Conditions over triggers: what they mean, what comes back, and how a wrong one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.condition import Condition, join, parse_condition

NAMES = ("age", "data", "drift", "loss")
CASES = [
    ("loss", {"loss"}, ("loss",)),
    ("loss", {"drift"}, ()),
    ("loss or drift", {"drift"}, ("drift",)),
    ("loss or drift", {"drift", "loss"}, ("loss",)),
    ("loss and drift", {"drift"}, ()),
    ("drift and loss", {"drift", "loss"}, ("drift", "loss")),
    ("loss or age and drift", {"loss"}, ("loss",)),
    ("(loss or age) and drift", {"loss"}, ()),
    ("(loss or age) and drift", {"age", "drift"}, ("age", "drift")),
    ("drift and data or loss", {"drift", "loss"}, ("loss",)),
    ("loss and (loss or age)", {"loss"}, ("loss",)),
]
WRONG = [
    ("", "a trigger is wanted, got nothing"),
    ("los", r"unknown trigger 'los'; did you mean 'loss'\?"),
    ("zzz", "unknown trigger 'zzz'; known: age, data, drift, loss"),
    ("not loss", "unknown trigger 'not'"),
    ("loss and", "a trigger is wanted after 'and', got nothing"),
    ("or loss", "a trigger is wanted, got 'or'"),
    ("loss or and age", "a trigger is wanted after 'or', got 'and'"),
    ("loss drift", "'and' or 'or' is wanted before 'drift'"),
    ("(loss or drift", r"'\)' is wanted, got nothing"),
    ("(loss drift)", r"'\)' is wanted, got 'drift'"),
    ("loss)", r"'\)' closes nothing"),
    ("()", r"a trigger is wanted after '\(', got '\)'"),
    ("(" * 500 + "loss" + ")" * 500, "more than 100 words or 20 parentheses"),
]


@pytest.mark.parametrize(("text", "true", "expected"), CASES)
def test_what_holds(text, true, expected):
    """By which names, in the condition's order."""
    assert parse_condition(text, NAMES).held_by(true) == expected


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_a_wrong_one_is_refused(text, reason):
    """With the word that is wrong and what is wanted."""
    with pytest.raises(ValueError, match=reason):
        parse_condition(text, NAMES)


_conditions = st.recursive(
    st.sampled_from(NAMES).map(lambda name: Condition("name", name)),
    lambda inner: st.builds(join, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=12,
)


def _value(condition, true):
    """What Python makes of the same words."""
    return eval(str(condition), {name: name in true for name in NAMES})


@given(_conditions)
def test_a_condition_survives_its_text(condition):
    """Written and read it is the same."""
    assert parse_condition(str(condition), NAMES) == condition


@given(_conditions, st.sets(st.sampled_from(NAMES)))
def test_it_holds_where_it_is_true(condition, true):
    """By names that are true, and which are enough by themselves."""
    held = condition.held_by(true)
    assert bool(held) == _value(condition, true)
    assert set(held) <= true
    assert not held or _value(condition, set(held))
    assert set(condition.names) <= set(NAMES)
