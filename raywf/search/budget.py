"""What a search may still take: wall-clock seconds, CPU-seconds, money; and what it has taken so far.

A search is charged for the CPUs that it may occupy, for as long as it runs, as a cloud does: CPU-seconds and
money are bounds on its wall-clock time, and what fits cost is part of them. On a cluster that grows, what is
there is charged second by second, and the time is that for which the most that may come could be paid: the
bounds hold whenever it grows, and where it does not, less is spent than was allowed. What was taken is
written down as it goes, so that a search that was killed and goes on has the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from raywf.core.errors import SettingsError
from raywf.core.records import Attempt, Rate
from raywf.core.settings import SearchSettings
from raywf.search.ledger import Ledger

WORKER_S = 2.0  # until a new worker process has what it imports
START_S = 5.0  # until the first trial begins, workers and their imports
_START_SHARE = 0.25  # of a budget that is shorter still
_NOTE_EVERY_S = 1.0
_REFUSED_S = 60.0  # that notes may be refused in a row: longer, and a resumed search would overdraw too much
_LEAST_WARM_S = 15.0  # of a budget that leaves a warm search less
_CLOSING_S, _CLOSING_SHARE = 2.0, 0.05  # for the choice, the merging and the bundle; of a small budget less


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """What a search may occupy of a cluster as it is: so many slots for trials, on these CPUs and GPUs."""

    slots: int
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What the interrupted attempts of a search took; nothing, where one came to its end."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    cost_usd: float = 0.0


def taken_before(ledger: Ledger) -> Taken:
    """Return what a search that goes on has taken already."""
    attempts = () if ledger.read_sweep() is not None else ledger.attempts()
    return Taken(
        wall_s=sum(a.wall_s for a in attempts),
        cpu_s=sum(a.cpu_s for a in attempts),
        cost_usd=sum(a.cost_usd for a in attempts),
    )


def count_slots(search: SearchSettings, *, cpus: float) -> int:
    """Return how many trials run at once on so many CPUs.

    >>> count_slots(SearchSettings(trial_cpus=2), cpus=9)
    4
    """
    slots = max(1, int(cpus) // search.slot_cpus)
    return min(slots, search.max_concurrent or slots)


def warm_seconds(allowed_s: float, share: float) -> float:
    """Return what a warm search has of the seconds that a full one is allowed.

    Starting the workers takes a short one as long as any other, so it has more than its share.

    >>> [warm_seconds(allowed_s, 0.2) for allowed_s in (3.0, 10.0, 30.0, 60.0, 240.0)]
    [3.0, 6.0, 10.0, 15.0, 48.0]
    """
    least_s = min(START_S + share * max(0.0, allowed_s - START_S), _LEAST_WARM_S)
    return min(allowed_s, max(share * allowed_s, least_s))


def allowed_seconds(
    search: SearchSettings, rate: Rate | None, *, cpus: float, gpus: float = 0.0, taken: Taken | None = None
) -> float:
    """Return the wall-clock seconds that all the budgets allow a search of at most so many CPUs and GPUs.

    Those that it has `taken` before an interruption are among them, on whatever they were.

    >>> search, rate = SearchSettings(budget_s=600, max_usd=0.05), Rate(usd_per_cpu_hour=1.0)
    >>> round(allowed_seconds(search, rate, cpus=2), 6)
    90.0

    Raises:
        SettingsError: if money is bounded and no price is known.
    """
    taken = taken or Taken()
    bounds = [search.budget_s]
    if search.max_cpu_s is not None:
        bounds.append(taken.wall_s + (search.max_cpu_s - taken.cpu_s) / cpus)
    if search.max_usd is not None:
        if rate is None:
            raise SettingsError("search.max_usd bounds a search only where its plan has a rate")
        usd_per_s = rate.usd(cpu_s=cpus, gpu_s=gpus)
        left_usd = search.max_usd - taken.cost_usd
        bounds.append(taken.wall_s + left_usd / usd_per_s if usd_per_s else float("inf"))
    return min(bounds)


@dataclass(slots=True)
class Budget:
    """A search's clock: `start` is when it would have begun without its interruptions (`time.time()`).

    What it takes is noted in the ledger as an attempt of `workflow` for a `decision`, at `rate`; without one
    it costs nothing. `cpus`, `gpus` and `slots` are what it may occupy now. Where that changes, `measure`
    tells it with each note, and the time between two is charged at the larger.
    """

    ledger: Ledger
    allowed_s: float
    cpus: float
    gpus: float = 0.0
    slots: int = 0
    workflow: str = ""
    decision: str = ""
    rate: Rate | None = None
    start: float = 0.0
    noted: float = 0.0
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    measure: Callable[[], Occupied] | None = None
    before: Taken = field(init=False)
    _wall_s: float = 0.0
    _cpu_s: float = 0.0
    _cost_usd: float = 0.0
    _refused: float | None = None  # since when the store refuses notes (`time.monotonic()`)

    def __post_init__(self) -> None:
        self.before = taken_before(self.ledger)
        self.start = time.time() - self.before.wall_s

    @property
    def spent_s(self) -> float:
        """Wall-clock seconds taken, those before an interruption included."""
        return time.time() - self.start

    @property
    def cpu_s(self) -> float:
        """CPU-seconds charged up to the last note, those before an interruption included."""
        return self.before.cpu_s + self._cpu_s

    @property
    def left_s(self) -> float:
        """Wall-clock seconds left; negative once it is passed."""
        return self.allowed_s - self.spent_s

    def instant(self, share: float) -> float:
        """Return when a share of the budget after the workers' start will have been taken (`time.time()`)."""
        begun = min(START_S, _START_SHARE * self.allowed_s)
        return self.start + begun + share * (self.allowed_s - begun)

    @property
    def closing(self) -> float:
        """When the members' fits should have ended, so that the bundle is written in time (`time.time()`)."""
        return self.start + self.allowed_s - min(_CLOSING_S, _CLOSING_SHARE * self.allowed_s)

    def note(self, *, at_once: bool = False) -> None:
        """Write down what was taken, at most once a second.

        Raises:
            OSError: if the store has refused for a minute; a moment's refusal the next note makes good.
        """
        if at_once or time.time() - self.noted > _NOTE_EVERY_S:
            self.noted = time.time()
            self._charge()
            attempt = Attempt(
                workflow=self.workflow,
                started=self.began,
                wall_s=self._wall_s,
                cpu_s=self._cpu_s,
                cost_usd=self._cost_usd,
                decision=self.decision,
            )
            self._write(attempt)

    def _write(self, attempt: Attempt) -> None:
        try:
            self.ledger.note(attempt)
        except OSError:
            refused = self._refused = self._refused or time.monotonic()
            if time.monotonic() - refused > _REFUSED_S:
                raise
            return
        self._refused = None

    def _charge(self) -> None:
        """Add what the time since the last note is charged."""
        now = (
            Occupied(slots=self.slots, cpus=self.cpus, gpus=self.gpus)
            if self.measure is None
            else self.measure()
        )
        wall_s = (datetime.now(UTC) - self.began).total_seconds()
        since_s, self._wall_s = wall_s - self._wall_s, wall_s
        cpu_s, gpu_s = since_s * max(now.cpus, self.cpus), since_s * max(now.gpus, self.gpus)
        self._cpu_s += cpu_s
        self._cost_usd += self.rate.usd(cpu_s=cpu_s, gpu_s=gpu_s) if self.rate else 0.0
        self.cpus, self.gpus, self.slots = now.cpus, now.gpus, now.slots
