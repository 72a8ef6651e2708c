"""What parameters are chosen from."""

from __future__ import annotations

import re
from typing import Any

import pytest

from raywf.core.space import Choice, Range, parse_space


def test_ranges_and_choices() -> None:
    """Whole numbers where both ends are."""
    space = parse_space(
        {"a": {"low": 1, "high": 9}, "b": {"low": "1e-1", "high": 1, "log": True}, "c": ["x", None]}
    )
    assert space == {"a": Range(1, 9), "b": Range(0.1, 1, log=True), "c": Choice(("x", None))}
    assert [space["a"].is_whole, space["b"].is_whole] == [True, False]  # type: ignore[union-attr]
    assert [space["a"].holds(9), space["a"].holds(10), space["c"].holds("x"), space["c"].holds("y")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3, "must be a list or {low, high, log, step}"),
        ([], "must list texts, numbers"),
        ([{}], "must list texts, numbers"),
        ({"low": 1}, "must be a list or {low"),
        ({"low": 1, "high": 2, "hihg": 3}, "must be a list or {low"),
        ({"low": 2, "high": 1}, "must have low < high"),
        ({"low": 0, "high": 1, "log": True}, "both above 0 with log"),
        ({"low": "a", "high": 1}, "must have numbers"),
        ({"low": 1, "high": 3, "log": True, "step": 1}, "no step with log"),
    ],
)
def test_others_are_refused(given: Any, expected: str) -> None:
    """With the parameter's name."""
    with pytest.raises(ValueError, match=f"'lr' {re.escape(expected)}|'lr' .*{re.escape(expected)}"):
        parse_space({"lr": given})
