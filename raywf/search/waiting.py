"""Says how many slots a search has, how many it has asked for, and since when."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_FIRST_S = 3.0  # a cluster that does not grow has its workers by then, or soon
_EVERY_S, _MOST_S = 10.0, 300.0  # between two lines, while there is news; the most while there is none


class SlotWatch:
    """Says a line while trials wait for nodes, at most every ten seconds, ever more rarely without news.

    `most` is how many slots the search may have. Requests are met in order, so the line tells of the oldest.

    >>> now = [0.0]
    >>> watch = SlotWatch(print, most=8, clock=lambda: now[0])
    >>> watch.see(up=3, waiting=8)
    >>> now[0] = 40.0
    >>> watch.see(up=3, waiting=8)
    3 of 8 slots up, 5 requested 40 s ago
    """

    def __init__(
        self, say: Callable[[str], None], *, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._most, self._clock = say, most, clock
        self._asked: deque[float] = deque()  # when each request that is not met was made
        self._said: tuple[int, int] | None = None
        self._last, self._pause_s = float("-inf"), _EVERY_S

    def see(self, *, up: int, waiting: int) -> None:
        """Take in how many slots there are and how many trials wait, some perhaps for each other."""
        now = self._clock()
        self._count(max(0, min(waiting, self._most - up)), now)
        news = (up, len(self._asked)) != self._said
        if now - self._last < (_EVERY_S if news else self._pause_s) or not self._is_due(now, news=news):
            return
        self._pause_s = _EVERY_S if news else min(_MOST_S, 2 * self._pause_s)
        self._last, self._said = now, (up, len(self._asked))
        self._say(f"{up} of {self._most} slots up{self._requested(now)}")

    def _count(self, asked: int, now: float) -> None:
        while len(self._asked) > asked:
            self._asked.popleft()
        self._asked.extend([now] * (asked - len(self._asked)))

    def _is_due(self, now: float, *, news: bool) -> bool:
        if not self._asked:
            return self._said is not None and news
        return self._said is not None or now - self._asked[0] >= _FIRST_S

    def _requested(self, now: float) -> str:
        if not self._asked:
            return ""
        return f", {len(self._asked)} requested {now - self._asked[0]:.0f} s ago"
