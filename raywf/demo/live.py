"""Follows the journal while traffic runs, and says what happens in plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from raywf.core.journal import FINAL, Journal
from raywf.core.records import JournalEntry

_SHOWN = {
    "snapshot": "snapshot {snapshot}, {rows:,} rows",
    "searched": "search done: {trials} trials in {spent_s:.0f} s",
    "promoted": "SWAPPED IN version {version}",
    "rejected": "rejected version {version}",
    "failed": "given up",
}


class Follower:
    """Reads the journal at most a few times a second and prints each new stage once."""

    def __init__(self, journal: Journal, say: Callable[[str], None], *, every_s: float = 0.4) -> None:
        self._journal, self._say, self._every_s = journal, say, every_s
        self._seen: set[tuple[str, str]] = set()
        self._looked = 0.0
        self.entries: tuple[JournalEntry, ...] = ()
        self.is_running = False

    def look(self, now: datetime) -> None:
        """Print what is new at event time `now`; does nothing if it looked just before.

        While the store does not answer there is nothing new: a later look tells.
        """
        if time.monotonic() - self._looked < self._every_s:
            return
        self._looked = time.monotonic()
        with suppress(OSError):
            self.entries = self._journal.entries()
        for entry in self.entries:
            if (entry.decision_id, entry.stage) not in self._seen:
                self._seen.add((entry.decision_id, entry.stage))
                self._tell(entry, now)
        begun = {e.decision_id for e in self.entries}
        ended = {e.decision_id for e in self.entries if e.stage in FINAL}
        self.is_running = bool(begun - ended)

    def mark_seen(self) -> None:
        """Take everything that is in the journal as told."""
        self.entries = self._journal.entries()
        self._seen |= {(e.decision_id, e.stage) for e in self.entries}

    def _tell(self, entry: JournalEntry, now: datetime) -> None:
        day = f"{now:%b %d}"
        if entry.stage.startswith("submitted-"):
            self._say(f"{day}  RETRAIN: {entry.reasons[0]}")
        elif entry.stage.startswith("lost-"):
            self._say(f"{day}    {entry.reasons[0]}; it is submitted again")
        elif entry.stage == "gated":
            self._say(f"{day}    gate: {entry.figures['outcome']}; {entry.reasons[0]}")
        elif entry.stage in _SHOWN:
            self._say(f"{day}    {_SHOWN[entry.stage].format(**entry.figures)}")
