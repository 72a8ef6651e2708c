"""A look at whether a retraining would help: the champion beside a cheap model of newer rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from raywf.core.clock import parse_time
from raywf.core.records import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Champion `version` and a quick model, scored on rows whose label came after `since`, until `time`.

    The quick model was fitted on what was known at `since`; `former` is one of its kind that knows no newer
    rows than the champion, None where that was not tried. `champion`, `quick` and `former` are the mean
    bounded losses over `rows`, `error` is the standard error of the mean difference of the first two,
    `former_error` that of the last two. `cpu_s` is what it took. The history has `growth` times the rows that
    the champion can have seen, None where that is not known, or old rows leave (`validate.window`). It is
    `thin` where so few rows were new that the next look is to have them too.
    """

    version: str
    since: datetime
    time: datetime
    rows: int
    champion: float
    quick: float
    error: float
    cpu_s: float
    former: float | None = None
    former_error: float | None = None
    growth: float | None = None
    thin: bool = False

    @property
    def regret(self) -> float:
        """What the champion loses beside the quick model, as a share of its loss; below 0 where it is better.

        >>> from datetime import UTC
        >>> day = datetime(2020, 1, 1, tzinfo=UTC)
        >>> looked = {"version": "1", "since": day, "time": day, "rows": 900, "error": 0.01, "cpu_s": 1.0}
        >>> round(Probe(champion=0.2, quick=0.15, **looked).regret, 3)
        0.25
        """
        return self._share(self.champion - self.quick)

    @property
    def regret_error(self) -> float:
        """The regret's standard error, the champion's loss taken as it is."""
        return self._share(self.error)

    @property
    def newer(self) -> float:
        """What newer rows do for models of the quick one's kind, as a share of the champion's loss.

        >>> from datetime import UTC
        >>> day = datetime(2020, 1, 1, tzinfo=UTC)
        >>> looked = {"version": "1", "since": day, "time": day, "rows": 900, "error": 0.01, "cpu_s": 1.0}
        >>> round(Probe(champion=0.2, quick=0.22, former=0.23, **looked).newer, 3)
        0.05
        """
        return 0.0 if self.former is None else self._share(self.former - self.quick)

    @property
    def newer_error(self) -> float | None:
        """Its standard error; None where that is not known."""
        return None if self.former_error is None else self._share(self.former_error)

    def _share(self, loss: float) -> float:
        return loss / self.champion if self.champion > 0 else 0.0


def look_since(decision: Decision) -> datetime:
    """Return since when a decided look's rows are new: its window, less the number of times it was tried."""
    return parse_time(decision.anchor)
