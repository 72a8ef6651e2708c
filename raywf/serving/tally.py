"""How a replica serves each version, by window: plain numbers, told to the outcome log now and then.

Prometheus has the replica's requests as they are now; these are for evidence, beside what the answers were
worth. A replica that is killed has told all but what came in its last minute or so.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from raywf.core.clock import from_microseconds, to_microseconds
from raywf.core.service import Service, time_bin
from raywf.outcomes.writer import LogWriter

EVERY_S = 10.0
_SLOW_S, _GROWTH = 60.0, 1.1  # what has grown by less than a tenth waits for a minute
_KEPT_S, _MOST = 3600.0, 256  # what has rested so long is let go of, and what is beyond so many
_logger = logging.getLogger(__name__)

Trouble = Literal["refused", "failed"]
_Key = tuple[str, int]


@dataclass(slots=True)
class _Tally:
    """One version in one window.

    `told` is how many requests the last record had, `told_at` when that was; `charged` how many have had
    their share of the replica's CPUs.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    answered: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    times: Counter[int] = field(default_factory=Counter)
    charged: int = 0
    told: int = 0
    told_at: float = 0.0

    @property
    def requests(self) -> int:
        return self.answered + self.counts.total()

    def is_due(self, now: float, *, everything: bool) -> bool:
        """Whether it has grown enough to be told again."""
        much = everything or self.requests >= _GROWTH * self.told or now - self.told_at >= _SLOW_S
        return self.requests > self.told and much


class Tallies:
    """Counts requests by version and window (of length `window`, by the event time of their first row).

    A replica's CPUs, `cpus` of them held or what its process used where it holds none, go to its requests in
    equal parts, ten seconds at a time; idle ones to the next that come. Safe for threads.
    """

    def __init__(
        self,
        window: timedelta,
        *,
        cpus: float = 0.0,
        wall: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._length = window // timedelta(microseconds=1)
        self._cpus, self._wall, self._used = cpus, wall, used
        self._tallies: dict[_Key, _Tally] = {}
        self._last: dict[str, int] = {}  # the window of each version's last answer
        self._spent = self._cpu_seconds()
        self._lock = threading.Lock()

    def answered(self, version: str, when: datetime, seconds: float) -> None:
        """Count a request that a version answered; `when` is its first row's event time."""
        key, taken = (version, to_microseconds(when) // self._length), time_bin(seconds)
        with self._lock:
            self._last[version] = key[1]
            tally = self._tally(key)
            tally.answered += 1
            tally.times[taken] += 1

    def troubled(self, version: str, kind: Trouble, when: datetime) -> None:
        """Count one without an answer: where the version's last answer was, else in `when`'s window."""
        with self._lock:
            number = self._last.get(version, to_microseconds(when) // self._length)
            self._tally((version, number)).counts[kind] += 1

    def tell(self, *, everything: bool = False) -> list[Service]:
        """Return a record of each tally that has grown by some since it was told last; or by anything."""
        with self._lock:
            self._charge()
            now = self._wall()
            due = {k: t for k, t in self._tallies.items() if t.is_due(now, everything=everything)}
            for tally in due.values():
                tally.told, tally.told_at = tally.requests, now
            records = [self._record(key, tally) for key, tally in due.items()]
            self._let_go(now)
            return records

    def _charge(self) -> None:
        """Share what the replica has held since there was last a request, in equal parts, by those since."""
        more = {key: t.requests - t.charged for key, t in self._tallies.items() if t.requests > t.charged}
        if not more:
            return
        spent = self._cpu_seconds()
        each = (spent - self._spent) / sum(more.values())
        self._spent = spent
        for key, count in more.items():
            tally = self._tallies[key]
            tally.cpu_s += each * count
            tally.charged = tally.requests

    def _let_go(self, now: float) -> None:
        """Forget what has rested; one that is wanted again has another id, so that both count."""
        resting = sorted((t.told_at, k) for k, t in self._tallies.items() if t.requests == t.told)
        beyond = max(0, len(self._tallies) - _MOST)
        for i, (told_at, key) in enumerate(resting):
            if i < beyond or told_at < now - _KEPT_S:
                del self._tallies[key]

    def _tally(self, key: _Key) -> _Tally:
        if key not in self._tallies:
            self._tallies[key] = _Tally()
        return self._tallies[key]

    def _cpu_seconds(self) -> float:
        return self._cpus * self._wall() if self._cpus else self._used()

    def _record(self, key: _Key, tally: _Tally) -> Service:
        version, number = key
        return Service(
            id=tally.id,
            time=from_microseconds(number * self._length),
            length_s=self._length / 1e6,
            version=version,
            answered=tally.answered,
            refused=tally.counts["refused"],
            failed=tally.counts["failed"],
            cpu_s=round(tally.cpu_s, 4),
            times=dict(tally.times),
        )


def keep_tallying(tallies: Tallies, log: LogWriter, stop: threading.Event) -> None:
    """Write records again and again until `stop` is set; meant for a daemon thread."""
    while not stop.wait(EVERY_S):
        write_tallies(tallies, log)


def write_tallies(tallies: Tallies, log: LogWriter, *, everything: bool = False) -> None:
    """Write what `Tallies.tell` gives; what cannot be written is written when it has grown again."""
    try:
        records = tallies.tell(everything=everything)
        if records:
            log.append(records)
            log.sync_soon()
    except Exception as err:  # noqa: BLE001 figures that cannot be told must not end the replica
        _logger.warning("how requests were served could not be written to the log: %s", err)
