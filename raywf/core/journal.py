"""The decisions and what came of each: one file a (decision, stage), written once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from raywf.core.codec import decode, encode
from raywf.core.ids import stable_id
from raywf.core.records import Decision, JournalEntry
from raywf.core.store import Store

LOOKED = "looked"  # the last stage of a probe; its figures are those of a `Probe`
FINAL = frozenset({"promoted", "rejected", "failed", LOOKED})
ATTRIBUTED = "attributed"  # before its job: its reasons say what the fall comes from
ROLLOUT = "rollout"  # the stage of a decision whose version live traffic is to decide on
_REQUEST, _REQUESTED = "request-", "%Y%m%dT%H%M%S%f"
BY_HAND = "hand"  # the cause of a decision that the command which wrote it carries out itself


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Journal:
    """One workflow's journal below ``journal/<workflow>``; any process may read and write it.

    A file is written once, so each is read but once by whoever keeps a journal at hand.
    """

    root: str
    workflow: str
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def decide(self, decision: Decision) -> bool:
        """Write a decision before it is carried out; return whether it is new."""
        return self._store.create(self._path(decision.id, "decision"), _dump(decision))

    def record(
        self,
        decision: Decision,
        stage: str,
        *,
        reasons: tuple[str, ...] = (),
        figures: Mapping[str, Any] | None = None,
    ) -> bool:
        """Write that a decision reached a stage; return whether this is new."""
        entry = JournalEntry(
            decision_id=decision.id,
            stage=stage,
            time=decision.time,
            wall_time=datetime.now(UTC),
            reasons=reasons,
            figures=dict(figures or {}),
        )
        return self._store.create(self._path(decision.id, f"stage-{stage}"), _dump(entry))

    def decisions(self) -> tuple[Decision, ...]:
        """Return all decisions, oldest event time first."""
        names = [n for n in self._store.list(self._folder) if n.endswith(".decision.json")]
        made = [self._read(Decision, n) for n in names]
        return tuple(sorted(made, key=lambda d: (d.time, d.id)))

    def decision(self, decision_id: str) -> Decision | None:
        """Return one decision, or None."""
        try:
            return self._read(Decision, f"{decision_id}.decision.json")
        except FileNotFoundError:
            return None

    def entries(self, decision_id: str | None = None) -> tuple[JournalEntry, ...]:
        """Return the stages that were reached, in the order of the wall's time."""
        names = [n for n in self._store.list(self._folder) if ".stage-" in n]
        if decision_id is not None:
            names = [n for n in names if n.startswith(f"{decision_id}.")]
        made = [self._read(JournalEntry, n) for n in names]
        return tuple(sorted(made, key=lambda e: e.wall_time))

    def stages(self, decision_id: str) -> dict[str, JournalEntry]:
        """Return one decision's stages by name."""
        return {e.stage: e for e in self.entries(decision_id)}

    def request(self, text: str, *, key: str | None = None) -> str:
        """Ask for a retraining; return the request's id. The controller turns it into a decision.

        Of the same `key` there is one request, whose first reason stays.
        """
        now = datetime.now(UTC).strftime(_REQUESTED)
        request_id = f"{_REQUEST}{now if key is None else stable_id(key, length=24)}"
        body = json.dumps({"reason": text, "time": now}).encode()
        self._store.create(f"{self._folder}/{request_id}.request.json", body)
        return request_id

    def requests(self) -> dict[str, str]:
        """Return the reasons of all requests by id, oldest first."""
        names = [n for n in self._store.list(self._folder) if n.endswith(".request.json")]
        found = {n.removesuffix(".request.json"): self._read(dict[str, str], n) for n in names}
        # of older ones the id alone tells when
        order = sorted(found, key=lambda i: (found[i].get("time", i.removeprefix(_REQUEST)), i))
        return {i: found[i]["reason"] for i in order}

    def _read(self, kind: type[T], name: str) -> T:
        """Return what a file holds.

        Raises:
            FileNotFoundError: if it is not there.
        """
        if name not in self._known:
            self._known[name] = decode(kind, json.loads(self._store.read(f"{self._folder}/{name}")))
        found: T = self._known[name]
        return found

    @property
    def _store(self) -> Store:
        return Store(self.root)

    @property
    def _folder(self) -> str:
        return f"journal/{self.workflow}"

    def _path(self, decision_id: str, part: str) -> str:
        return f"{self._folder}/{decision_id}.{part}.json"


def _dump(record: Any) -> bytes:
    return json.dumps(encode(record), indent=1).encode()
