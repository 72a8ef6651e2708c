"""What a report tells: the records of one run of the loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from raywf.core.records import Decision, Evidence, JournalEntry, ModelVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One month of traffic: `static` is what the first model would have scored, `live` what was answered."""

    start: datetime
    rows: int
    label_share: float
    static: float
    live: float
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A run of the loop. `latency` holds (wall seconds since the start of traffic, request seconds),
    `swaps` the wall seconds of each swap on the same axis, `summary` the figures of the last line.
    """

    title: str
    metric: str
    months: tuple[Month, ...]
    decisions: tuple[Decision, ...]
    entries: tuple[JournalEntry, ...]
    versions: tuple[ModelVersion, ...]
    evidence: tuple[Evidence, ...]
    latency: tuple[tuple[float, float], ...] = ()
    swaps: tuple[float, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
