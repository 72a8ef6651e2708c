"""Rows of requests that wait at the same time, answered together by models that are slow at one row.

A model whose answer to a row takes a millisecond or more would hold all other requests up in the event loop:
its requests go to threads. Where rows answered together take much less than one after the other, as those of
large networks do, the threads gather them. Nothing is waited for: while a batch is being answered the next
one gathers, so that a request that comes alone is answered alone, and the batches grow with the traffic.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLOW_S = 0.001  # of a row: from then on its answer is not awaited in the event loop
MOST_ROWS = 64  # of a batch
_PAYS = 0.5  # a row among others, beside one alone: below this, gathering pays
_PROBED = 16  # rows
_TRIES, _MOST_TRIES = 3, 20  # of a slow model, of one that may only have been disturbed

Features = Mapping[str, Any]
Predict = Callable[[Sequence[Features]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Pace:
    """The seconds that a model takes for one row alone, and for a row among sixteen."""

    alone_s: float = 0.0
    among_s: float = 0.0

    @property
    def is_slow(self) -> bool:
        """Whether other requests should not wait for it."""
        return self.alone_s >= SLOW_S

    @property
    def gathers(self) -> bool:
        """Whether rows are to be answered together."""
        return self.is_slow and self.among_s <= _PAYS * self.alone_s


def measure_pace(predict: Predict, rows: Sequence[Features]) -> Pace:
    """Measure a model on some of its rows, by the least of several times; of a fast one a row alone only."""
    if not rows:
        return Pace()
    alone_s = _seconds(predict, rows[:1])
    for _ in range(_MOST_TRIES if alone_s < 20 * SLOW_S else _TRIES):
        if alone_s < SLOW_S:
            return Pace(alone_s, alone_s)
        alone_s = min(alone_s, _seconds(predict, rows[:1]))
    many = [rows[i % len(rows)] for i in range(_PROBED)]
    return Pace(alone_s, min(_seconds(predict, many) for _ in range(_TRIES)) / _PROBED)


def _seconds(predict: Predict, rows: Sequence[Features]) -> float:
    start = time.perf_counter()
    predict(rows)
    return time.perf_counter() - start


@dataclass(slots=True, eq=False)
class _Job:
    """The rows of one caller, and what becomes of them; `turn` wakes the caller."""

    rows: Sequence[Features]
    turn: threading.Event = field(default_factory=threading.Event)
    scores: NDArray[np.float64] | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.scores is not None or self.error is not None


class Gathered:
    """Answers the rows of many threads, as many together as wait; one of those that wait does the work."""

    def __init__(self, predict: Predict, *, most_rows: int = MOST_ROWS) -> None:
        self._predict, self._most = predict, most_rows
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._is_busy = False
        self.batches = 0

    def __call__(self, rows: Sequence[Features]) -> NDArray[np.float64]:
        """Return the scores ``(n_rows, k)``; whatever the model raises for these rows is raised."""
        job = _Job(rows)
        with self._lock:
            self._waiting.append(job)
            leads, self._is_busy = not self._is_busy, True
        if not leads:
            job.turn.wait()
        if not job.is_done:
            self._answer(self._next_batch())
        if job.error is not None:
            raise job.error
        assert job.scores is not None
        return job.scores

    def _next_batch(self) -> list[_Job]:
        """Take the jobs that have waited longest, at least one, and no more rows than a batch may have."""
        with self._lock:
            found = [self._waiting.popleft()]
            rows = len(found[0].rows)
            while self._waiting and rows + len(self._waiting[0].rows) <= self._most:
                found.append(self._waiting.popleft())
                rows += len(found[-1].rows)
        return found

    def _answer(self, jobs: list[_Job]) -> None:
        """Answer jobs together, then let the first that waits by now go on with the next ones."""
        self.batches += 1
        try:
            self._together(jobs)
        except BaseException as err:  # a model that ends its thread leaves no caller waiting
            for job in jobs:
                job.error = job.error or (None if job.is_done else err)
            raise
        finally:
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                self._is_busy = heir is not None
            for job in (*jobs, *([heir] if heir else [])):
                job.turn.set()

    def _together(self, jobs: list[_Job]) -> None:
        ends = np.cumsum([len(job.rows) for job in jobs])
        try:
            scores = self._predict([row for job in jobs for row in job.rows])
            parts = np.split(scores, ends[:-1])
        except Exception as err:  # noqa: BLE001 whatever one caller's rows raise is not the others'
            if len(jobs) == 1:
                jobs[0].error = err
                return
            for job in jobs:
                self._together([job])
            return
        for job, part in zip(jobs, parts, strict=True):
            job.scores = part
