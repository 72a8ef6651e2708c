"""Who leads: of several controllers that were started for one workflow, wherever they run, one decides.

A term is a file that is created once, under the next number; its holder writes its beat into it. Another
takes the next term when it has seen no beat for so long by its own clock, so that clocks need not agree.
Whoever held a term finds the next one there and follows. Decisions have ids, and are written once, besides.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from raywf.core.store import Store

_WIDTH = 12


@dataclass(slots=True)
class Lease:
    """One contender for a workflow's lease; not safe for threads.

    `holder` names it: who comes again under the same name takes its term up at once. `patience_s` is how long
    another's silence is borne. A holder asks again before each act that must not be done twice.
    """

    root: str
    workflow: str
    holder: str
    patience_s: float = 120.0
    _term: int = 0
    _told: float = field(default=float("-inf"))  # when the last beat of our own was written
    _beat: int = 0
    _seen: tuple[int, int] = (-1, -1)  # another's term and beat,
    _since: float = field(default=float("-inf"))  # and when it came
    leader: str = ""

    def leads(self) -> bool:
        """Return whether this contender leads now, and see to it that it stays so.

        Raises:
            OSError: if the store does not answer; nobody knows who leads then.
        """
        number, record = self._newest()
        self.leader = str(record.get("holder", ""))
        if number == 0:
            return self._take(1)
        if self.leader == self.holder:
            return self._go_on(number, int(record["beat"]))
        seen = (number, int(record["beat"]))
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        if time.monotonic() - self._since > self.patience_s:
            return self._take(number + 1)
        return False

    def _go_on(self, number: int, beat: int) -> bool:
        now = time.monotonic()
        if number != self._term:
            self._term, self._beat, self._told = number, beat, float("-inf")
        if now > self._told + self.patience_s / 6:
            self._beat += 1
            self._store.write(self._path(number), self._record())
            self._told = now
        return True

    def _take(self, number: int) -> bool:
        now = time.monotonic()
        self._beat = 0
        if not self._store.create(self._path(number), self._record()):
            return False
        self._term, self._told, self.leader = number, now, self.holder
        self._store.drop(self._path(number - 2))
        return True

    def _newest(self) -> tuple[int, dict[str, Any]]:
        names = [n for n in self._store.list(self._folder) if n.endswith(".json")]
        if not names:
            return 0, {}
        try:
            record = json.loads(self._store.read(f"{self._folder}/{names[-1]}"))
        except FileNotFoundError:  # two terms came meanwhile
            return self._newest()
        return int(names[-1].removesuffix(".json")), record

    def _record(self) -> bytes:
        return json.dumps({"holder": self.holder, "beat": self._beat}).encode()

    @property
    def _store(self) -> Store:
        return Store(self.root)

    @property
    def _folder(self) -> str:
        return f"leases/{self.workflow}"

    def _path(self, number: int) -> str:
        return f"{self._folder}/{max(0, number):0{_WIDTH}}.json"
