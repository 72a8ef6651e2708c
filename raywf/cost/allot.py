"""Where a search's money went: parts that add up to what it occupied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raywf.core.records import Attempt, Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """USD by what they paid for: trials that were done, stopped (losers) or failed; CPUs that no trial held;
    searches that have not finished.
    """

    done: float = 0.0
    stopped: float = 0.0
    failed: float = 0.0
    idle: float = 0.0
    unfinished: float = 0.0

    @property
    def usd(self) -> float:
        """The whole."""
        return self.done + self.stopped + self.failed + self.idle + self.unfinished

    def __add__(self, other: Parts) -> Parts:
        return Parts(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """What one trial cost; `weight` is its share in the ensemble, 0 where it has none."""

    id: str
    family: str
    sweep_id: str
    status: str
    seconds: float
    usd: float
    weight: float


def allot(sweep: Sweep | None, attempts: Sequence[Attempt]) -> Parts:
    """Return what a search's attempts cost, by what came of it; None is a search that has not finished.

    >>> from datetime import UTC, datetime
    >>> at = datetime(2026, 1, 1, tzinfo=UTC)
    >>> allot(None, [Attempt(workflow="w", started=at, wall_s=9, cpu_s=18, cost_usd=0.25)]).unfinished
    0.25
    """
    total = sum(attempt.cost_usd for attempt in attempts)
    if sweep is None:
        return Parts(unfinished=total)
    by_status = dict.fromkeys(("done", "stopped", "failed"), 0.0)
    for trial in trial_costs(sweep, total):
        by_status[trial.status] += trial.usd
    return Parts(**by_status, idle=max(0.0, total - sum(by_status.values())))


def trial_costs(sweep: Sweep, total_usd: float) -> tuple[TrialCost, ...]:
    """Return what each trial cost, in all never more than the whole.

    They could be by a second: an attempt notes what it takes once a second, and a kill loses that.
    """
    trials = sum(trial.cost_usd for trial in sweep.trials)
    scale = min(1.0, total_usd / trials) if trials else 1.0
    weights = {member.trial_id: member.weight for member in sweep.members}
    return tuple(
        TrialCost(
            id=trial.id,
            family=trial.family,
            sweep_id=sweep.id,
            status=trial.status,
            seconds=trial.seconds,
            usd=trial.cost_usd * scale,
            weight=weights.get(trial.id, 0.0),
        )
        for trial in sweep.trials
    )
