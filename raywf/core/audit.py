"""Who did what to a running workflow: one file an act, written once and never changed."""

from __future__ import annotations

import getpass
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from raywf.core.codec import decode, encode
from raywf.core.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act: `who` is an API key's name or, at the command line, the user's; `what` has verb and object."""

    time: datetime
    who: str
    by: str
    what: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audit:
    """One workflow's acts below ``audit/<workflow>``; any process may write and read them."""

    root: str
    workflow: str

    def note(self, who: str, what: str, facts: Mapping[str, Any] | None = None, *, by: str = "http") -> None:
        """Write that someone did something; `by` is the way it was asked for."""
        now = datetime.now(UTC)
        act = Act(time=now, who=who, by=by, what=what, facts=dict(facts or {}))
        name = f"{now:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}.json"
        Store(self.root).create(f"{self._folder}/{name}", json.dumps(encode(act)).encode())

    def note_command(self, what: str, facts: Mapping[str, Any] | None = None) -> None:
        """Write that the user of this process did something at the command line."""
        self.note(_user(), what, facts, by="command line")

    def acts(self, *, newest: int | None = None) -> tuple[Act, ...]:
        """Return the acts, oldest first; of the newest only so many."""
        store = Store(self.root)
        names = store.list(self._folder)
        names = names if newest is None else names[max(0, len(names) - newest) :]
        return tuple(decode(Act, json.loads(store.read(f"{self._folder}/{name}"))) for name in names)

    @property
    def _folder(self) -> str:
        return f"audit/{self.workflow}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
