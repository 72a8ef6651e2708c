"""A look at whether a retraining would help: the champion beside a cheap model of newer rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Champion `version` and a quick model, scored on rows whose label came after `since`, until `time`.

    The quick model was fitted on what was known at `since`. `champion` and `quick` are the mean bounded
    losses over `rows`, `error` is the standard error of their mean difference. `cpu_s` is what it took.
    """

    version: str
    since: datetime
    time: datetime
    rows: int
    champion: float
    quick: float
    error: float
    cpu_s: float

    @property
    def regret(self) -> float:
        """What the champion loses beside the quick model, as a share of its loss; below 0 where it is better.

        >>> from datetime import UTC
        >>> day = datetime(2020, 1, 1, tzinfo=UTC)
        >>> looked = {"version": "1", "since": day, "time": day, "rows": 900, "error": 0.01, "cpu_s": 1.0}
        >>> round(Probe(champion=0.2, quick=0.15, **looked).regret, 3)
        0.25
        """
        return (self.champion - self.quick) / self.champion if self.champion > 0 else 0.0

    @property
    def regret_error(self) -> float:
        """The regret's standard error, the champion's loss taken as it is."""
        return self.error / self.champion if self.champion > 0 else 0.0
