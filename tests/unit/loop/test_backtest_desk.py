"""Turns to train."""

from __future__ import annotations

from raywf.loop.backtest.side_by_side import Desk


def test_a_training_is_given_once() -> None:
    """While one is at it, another who asks for the same waits, though a turn is free."""
    desk = Desk(2)
    assert desk.take("a")
    assert not desk.take("a")
    desk.give_back("a")
    assert desk.take("a")


def test_no_more_turns_than_there_are() -> None:
    """The third waits until one is given back."""
    desk = Desk(2)
    assert desk.take("a")
    assert desk.take("b")
    assert not desk.take("c")
    desk.give_back("a")
    assert desk.take("c")


def test_lines_are_told_once() -> None:
    """In their order."""
    desk = Desk(1)
    desk.say("one")
    desk.say("two")
    assert desk.said() == ["one", "two"]
    assert desk.said() == []
