"""How versions were served, by window: requests, their times and what they cost, of all replicas together.

As all of the fold it is a function of the set of records: of each replica's the furthest counts.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

from raywf.core.clock import to_microseconds
from raywf.core.records import Evidence
from raywf.core.service import Service, merged_times, time_quantile
from raywf.outcomes.lines import from_line, to_line

_Key = tuple[str, int]


@dataclass(slots=True)
class Services:
    """The furthest record of each id, by version and window."""

    known: dict[_Key, dict[str, Service]] = field(default_factory=dict)

    def take(self, services: Iterable[Service], length: int) -> None:
        """Take in records, in any order, seen before or not; those of windows of another length are left out.

        Windows are `length` microseconds long.
        """
        for one in services:
            if round(one.length_s * 1e6) != length:
                continue
            held = self.known.setdefault((one.version, to_microseconds(one.time) // length), {})
            former = held.get(one.id)
            if former is None or former.progress < one.progress:
                held[one.id] = one

    def lines(self) -> list[str]:
        """Return all that is known, as lines of the log."""
        return [to_line(one).decode() for held in self.known.values() for one in held.values()]

    @staticmethod
    def of_lines(lines: Iterable[str], length: int) -> Services:
        """Return what `lines` gave.

        Raises:
            ValueError, KeyError, TypeError: if one is no such line.
        """
        made, read = Services(), (from_line(line.encode()) for line in lines)
        made.take((one for one in read if isinstance(one, Service)), length)
        return made

    def told(self, key: _Key, evidence: Evidence) -> Evidence:
        """Return a window's evidence with how it was served, if that is known."""
        held = self.known.get(key)
        if not held:
            return evidence
        services, times = held.values(), merged_times(held.values())
        return replace(
            evidence,
            answered=sum(one.answered for one in services),
            refused=sum(one.refused for one in services),
            failed=sum(one.failed for one in services),
            p50_s=time_quantile(times, 0.5),
            p99_s=time_quantile(times, 0.99),
            cpu_s=math.fsum(one.cpu_s for one in services),
        )

    def forget(self, before: int, *, kept: Container[_Key]) -> None:
        """Let go of windows with a lower number, whose evidence is closed or was never there."""
        for key in [key for key in self.known if key[1] < before and key not in kept]:
            del self.known[key]
