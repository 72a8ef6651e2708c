"""What a backtest tells of one policy: its steps, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The time from one chance to decide to the next, and how what served it did.

    `version` was champion at its start; in a rollout another one may have answered some rows. `loss` is the
    workflow's metric as a loss, over all rows whose label ever became known; None without rows. `value` is
    what an answer earned on average by `monitor.values`, None where there are none.
    """

    start: datetime
    end: datetime
    version: str
    rows: int
    loss: float | None
    value: float | None = None


def mean_loss(steps: Sequence[Step]) -> float | None:
    """Return the mean loss of steps by length, for the last may be shorter; None where none has a loss."""
    told = [(step.loss, (step.end - step.start).total_seconds()) for step in steps if step.loss is not None]
    length = sum(seconds for _, seconds in told)
    return sum(loss * seconds for loss, seconds in told) / length if length else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A look, a retraining or a rollback: what was decided, what came of it and what it took.

    `time` is when it was decided and `settled` when it came to its stage, which a rollout puts off. `helped`
    says of a promoted version whether it did better than the former one until the next chance.
    """

    time: datetime
    settled: datetime
    kind: str
    cause: str
    effort: str
    stage: str
    reason: str
    cpu_s: float
    cost_usd: float = 0.0
    version: str = ""
    helped: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a policy fared: its steps and events."""

    policy: str
    steps: tuple[Step, ...]
    events: tuple[Event, ...]

    @property
    def loss(self) -> float:
        """The loss over time: the area beneath the steps' losses, by its length."""
        found = mean_loss(self.steps)
        return float("nan") if found is None else found

    @property
    def value(self) -> float | None:
        """What an answer earned on average; None where nothing says what it is worth."""
        told = [(step.rows, step.value) for step in self.steps if step.value is not None]
        rows = sum(count for count, _ in told)
        return sum(count * value for count, value in told) / rows if rows else None

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all looks and retrainings; the first model is everybody's."""
        return sum(event.cpu_s for event in self.events)

    @property
    def cost_usd(self) -> float:
        """Their price."""
        return sum(event.cost_usd for event in self.events)

    @property
    def vain(self) -> int:
        """How many events were rejected or did no better."""
        return sum(e.helped is False or e.stage == "rejected" for e in self.events)

    def count(self, kind: str, *stages: str) -> int:
        """Return how many events of a kind came to one of the stages, or at all."""
        return sum(e.kind == kind and (not stages or e.stage in stages) for e in self.events)
