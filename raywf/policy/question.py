"""What a trigger is asked, what it answers, and a decision before it has its id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from raywf.core.clock import format_time
from raywf.core.ids import stable_id
from raywf.core.records import Effort, Evidence
from raywf.core.retrain_settings import RetrainSettings
from raywf.policy.history import History


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision before it has its id."""

    kind: Literal["retrain", "probe", "skip"]
    cause: str
    window: str
    reasons: tuple[str, ...]

    def identity(self, workflow: str) -> str:
        """Return the decision's id."""
        return stable_id(workflow, self.kind, self.cause, self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is decided for which workflow, when and by what; `min_labelled` labels tell enough.

    `effort` is what a retraining would do now.
    """

    evidence: tuple[Evidence, ...]
    history: History
    settings: RetrainSettings
    workflow: str
    now: datetime
    min_labelled: int
    effort: Effort

    def windows(self, *, since: datetime | None) -> tuple[Evidence, ...]:
        """Return the champion's windows that end after `since` and not after now, in time order."""
        version = None if self.history.champion is None else self.history.champion.version
        mine = [e for e in self.evidence if e.version == version and e.end <= self.now]
        return tuple(sorted((e for e in mine if since is None or e.end > since), key=lambda e: e.start))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What a trigger that is set has found: whether it is due, the window of its decision, the figures."""

    cause: str
    words: str
    due: bool = False
    window: str = ""

    def choice(self) -> Choice | None:
        """Return the retraining that it asks for."""
        return Choice("retrain", self.cause, self.window, (self.words,)) if self.due else None


def numbered(window: str, tries: int) -> str:
    """Return a decision's window, with its number where there were tries for it (`Decision.anchor`).

    >>> numbered("1", 0), numbered("1", 1)
    ('1', '1#2')
    """
    return f"{window}#{tries + 1}" if tries else window


def time_or(value: datetime | None, other: str) -> str:
    """Return an instant as text, or `other` where there is none."""
    return other if value is None else format_time(value)
