"""How requests are served, as the outcome log tells it: how many, how fast, and what they cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

_STEPS = 8  # bins in each doubling of a time: a quantile is off by 4.5 % at most
_MOST_BIN = 50 * _STEPS
_LAST_YEAR = 2200
_MOST = 2**53  # what a checkpoint's JSON holds as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one replica did for one version in one window so far, which begins at `time` and has `length_s`.

    Of several records with one `id` the furthest counts, for its counts only grow. `answered` requests took
    `times`, counts by bin; `refused` ones could not be read or wanted too many explanations; to `failed` ones
    there was no answer though they were well formed. `cpu_s` are the CPU-seconds that the replica held for
    it, or used where it holds none.

    Raises:
        TypeError, ValueError: if a line of the log that was not written as one has such values.
    """

    id: str
    time: datetime
    length_s: float
    version: str
    answered: int
    refused: int
    failed: int
    cpu_s: float
    times: Mapping[int, int]

    def __post_init__(self) -> None:
        """Refuse what no replica counts."""
        if type(self.id) is not str or type(self.version) is not str:
            raise TypeError("an id or a version is no text")
        counts = (self.answered, self.refused, self.failed, *self.times.values(), self.cpu_s, self.length_s)
        if not all(0 <= count < _MOST for count in counts) or any(abs(b) > _MOST_BIN for b in self.times):
            raise ValueError("a count is out of range")
        if self.time.tzinfo is None or not 1970 <= self.time.year <= _LAST_YEAR:
            raise ValueError("a time is out of range or has no offset")

    @property
    def progress(self) -> tuple[object, ...]:
        """What orders records of one id."""
        counts = self.answered, self.refused, self.failed
        return sum(counts), *counts, self.cpu_s, sorted(self.times.items())


def time_bin(seconds: float) -> int:
    """Return the bin of a request's time.

    >>> time_bin(0.001) - time_bin(0.0005)
    8
    """
    return round(_STEPS * math.log2(max(seconds, 1e-9)))


def merged_times(services: Iterable[Service]) -> Counter[int]:
    """Return the counts by bin of several records together."""
    whole: Counter[int] = Counter()
    for one in services:
        whole.update(one.times)
    return whole


def time_quantile(times: Mapping[int, int], share: float) -> float | None:
    """Return the time that a share of the requests did not exceed, in seconds; None of no requests.

    >>> round(time_quantile({time_bin(0.001): 99, time_bin(0.1): 1}, 0.5), 4)
    0.001
    """
    total, passed = sum(times.values()), 0
    for one in sorted(times) if total else ():
        passed += times[one]
        if passed >= share * total:
            return float(2 ** (one / _STEPS))
    return None
