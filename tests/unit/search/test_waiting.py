"""What is said of slots that are waited for, and how often."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from raywf.search.waiting import SlotWatch


class Heard:
    """A watch with a clock of its own, and the lines that it said with their times."""

    def __init__(self, most: int) -> None:
        self.now, self.lines = 0.0, list[tuple[float, str]]()
        self._watch = SlotWatch(self._hear, most=most, clock=lambda: self.now)

    def _hear(self, text: str) -> None:
        self.lines.append((self.now, text))

    def spend(self, seconds: int, *, up: int, waiting: int) -> None:
        """Tell the watch the same twice a second."""
        for _ in range(2 * seconds):
            self._watch.see(up=up, waiting=waiting)
            self.now += 0.5


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Of eight slots."""
    return Heard(8)


def test_a_cluster_that_has_all_is_not_spoken_of(heard: Heard) -> None:
    """Whatever waits for a slot that another trial has."""
    heard.spend(60, up=8, waiting=3)
    assert heard.lines == []


def test_workers_that_start_are_not_waited_for(heard: Heard) -> None:
    """Slots that come at once are no news."""
    heard.spend(2, up=3, waiting=8)
    heard.spend(60, up=8, waiting=3)
    assert heard.lines == []


def test_the_oldest_request_is_told_of(heard: Heard) -> None:
    """Those that are met were the first."""
    heard.spend(3, up=0, waiting=2)
    heard.spend(20, up=0, waiting=8)
    heard.spend(20, up=3, waiting=8)
    texts = [text for _, text in heard.lines]
    assert texts[:2] == ["0 of 8 slots up, 8 requested 3 s ago", "0 of 8 slots up, 8 requested 13 s ago"]
    assert texts[2] == "3 of 8 slots up, 5 requested 20 s ago"


def test_no_two_lines_within_ten_seconds(heard: Heard) -> None:
    """However much changes."""
    for up in range(8):
        heard.spend(4, up=up, waiting=8 - up)
    times = [time for time, _ in heard.lines]
    assert len(times) > 2
    assert min(b - a for a, b in itertools.pairwise(times)) >= 10


def test_lines_come_ever_more_rarely_without_news(heard: Heard) -> None:
    """Of an hour there are no hundreds."""
    heard.spend(3600, up=3, waiting=8)
    times = [time for time, _ in heard.lines]
    assert times[:4] == [3, 13, 33, 73]
    assert len(times) < 20


def test_the_last_slot_is_told_of_once(heard: Heard) -> None:
    """Then there is silence."""
    heard.spend(20, up=3, waiting=8)
    heard.spend(60, up=8, waiting=1)
    assert heard.lines[-1][1] == "8 of 8 slots up"
    assert len([text for _, text in heard.lines if text == "8 of 8 slots up"]) == 1
