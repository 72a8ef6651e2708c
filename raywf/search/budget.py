"""What a search may still take: wall-clock seconds, CPU-seconds, money; and what it has taken so far.

A search is charged for the CPUs that it may occupy, for as long as it runs, as a cloud does: CPU-seconds and
money are bounds on its wall-clock time, and what fits cost is part of them. What was taken is written down
as it goes, so that a search that was killed and goes on has the rest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from raywf.core.settings import CostSettings, SearchSettings
from raywf.search.ledger import Ledger

_NOTE_EVERY_S = 1.0


def allowed_seconds(search: SearchSettings, cost: CostSettings, *, cpus: float) -> float:
    """Return the wall-clock seconds that all the budgets allow a search of so many CPUs.

    >>> search, cost = SearchSettings(budget_s=600, max_usd=0.05), CostSettings(usd_per_cpu_hour=1.0)
    >>> allowed_seconds(search, cost, cpus=2)
    90.0
    """
    bounds = [search.budget_s]
    if search.max_cpu_s is not None:
        bounds.append(search.max_cpu_s / cpus)
    if search.max_usd is not None:
        bounds.append(search.max_usd / cost.usd_per_cpu_hour * 3600 / cpus)
    return min(bounds)


@dataclass(slots=True)
class Budget:
    """A search's clock: `start` is when it would have begun without its interruptions (`time.time()`)."""

    ledger: Ledger
    allowed_s: float
    cpus: float
    start: float = 0.0
    noted: float = 0.0

    def __post_init__(self) -> None:
        before = 0.0 if self.ledger.read_sweep() is not None else self.ledger.spent_s()
        self.start = time.time() - before

    @property
    def spent_s(self) -> float:
        """Wall-clock seconds taken, those before an interruption included."""
        return time.time() - self.start

    @property
    def left_s(self) -> float:
        """Wall-clock seconds left; negative once it is passed."""
        return self.allowed_s - self.spent_s

    def instant(self, share: float) -> float:
        """Return when a share of the budget will have been taken (`time.time()`)."""
        return self.start + share * self.allowed_s

    def note(self, *, at_once: bool = False) -> None:
        """Write down what was taken, at most once a second."""
        if at_once or time.time() - self.noted > _NOTE_EVERY_S:
            self.noted = time.time()
            self.ledger.note_spent(self.spent_s)
