"""How much a replica has to do: by its event loop's delay and its processor time."""

from __future__ import annotations

import asyncio
import time

TICK_S = 0.05
_KEPT = 0.7  # of a former delay, from tick to tick
_SHARE_S = 1.0  # over which the processor time is looked at


class LoadGauge:
    """Measures the event loop that it is started in.

    `wait_s` is about how long a request waits before it is looked at: how late two timers of the loop in a
    row come at least, of late. One alone tells of a stall that is over, such as a disk's, and what gathered
    meanwhile is answered soon. Or it is how long a request waited for a thread. `busy` is the processor time
    that this process takes, in processors.
    """

    def __init__(self) -> None:
        self.wait_s = self.busy = 0.0
        self._is_started = False
        self._due = self._wall = self._used = self._late = self._threads_s = 0.0

    def waited(self, seconds: float) -> None:
        """Take in how long a request waited for a thread; from any thread."""
        self._threads_s = max(self._threads_s, seconds)

    def start(self) -> None:
        """Begin, in the loop that runs here, if one does; safe to call again."""
        if self._is_started:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._is_started = True
        self._wall, self._used = time.perf_counter(), time.process_time()
        self._due = self._wall
        self._tick(loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.perf_counter()
        former, self._late = self._late, now - self._due
        self.wait_s = max(min(former, self._late), self._threads_s, _KEPT * self.wait_s)
        self._threads_s = 0.0
        if now - self._wall >= _SHARE_S:
            used = time.process_time()
            self.busy = (used - self._used) / (now - self._wall)
            self._wall, self._used = now, used
        self._due = now + TICK_S
        loop.call_later(TICK_S, self._tick, loop)
