"""Why nothing was done, and since when: the changes of it, kept for whoever asks later."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from raywf.core.codec import decode, encode
from raywf.core.records import Decision, JournalEntry
from raywf.core.store import Store

_MOST = 500


class Skips:
    """The newest 500 changes of cause, in one file of the journal; one process at a time notes them.

    A change is an entry whose stage is the cause.
    """

    def __init__(self, root: str, workflow: str) -> None:
        self._store, self._path = Store(root), f"journal/{workflow}/skips.json"
        self._known: tuple[JournalEntry, ...] | None = None

    def forget(self) -> None:
        """Read what is kept anew before the next is: another process may have noted some."""
        self._known = None

    def note(self, skip: Decision) -> None:
        """Keep a skip whose cause is not that of the last one."""
        known = self.read() if self._known is None else self._known
        if known and known[-1].stage == skip.cause:
            self._known = known
            return
        entry = JournalEntry(
            decision_id=skip.id,
            stage=skip.cause,
            time=skip.time,
            wall_time=datetime.now(UTC),
            reasons=skip.reasons,
        )
        known = (*known, entry)[-_MOST:]
        self._store.write(self._path, json.dumps(encode(known)).encode())
        self._known = known

    def read(self) -> tuple[JournalEntry, ...]:
        """Return the changes, the oldest first; none where the file is not readable."""
        try:
            return decode(tuple[JournalEntry, ...], json.loads(self._store.read(self._path)))
        except (FileNotFoundError, ValueError):
            return ()
