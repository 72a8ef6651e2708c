"""When a retraining is asked for: the triggers, how they are joined, and how much a retraining does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from raywf.core.codec import DecodeError, require
from raywf.core.condition import Condition, parse_condition
from raywf.core.zone import find_zone

# the causes of retrainings that `when` may name, in the order in which they are asked
TRIGGERS = (
    "loss",
    "regret",
    "windows",
    "value",
    "estimate",
    "drift",
    "schedule",
    "growth",
    "fresh",
    "rows",
    "age",
    "data",
)
_SET_BY = {
    "regret": "look and retrain.regret",
    "fresh": "look, retrain.regret and retrain.effort: auto",
    "growth": "look, retrain.regret and retrain.growth",
    "windows": "windows",
    "value": "value_drop",
    "estimate": "estimated",
    "drift": "drift",
    "schedule": "every or retrain.cron",
    "rows": "after_rows",
    "age": "max_age",
    "data": "on_data",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BadWindowSettings:
    """A retraining is due when `bad` of the last `of` judged windows have a mean loss above the limit."""

    bad: int = 3
    of: int = 5

    def __post_init__(self) -> None:
        require(1 <= self.of <= 1000, "of", "in [1, 1000]", self.of)
        require(1 <= self.bad <= self.of, "bad", f"in [1, {self.of}], of which it is a part", self.bad)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSettings:
    """When a retraining job is submitted, and how much it does.

    Each `look` (none: never) a quick model of newer rows is scored beside the champion on the rows whose
    label came since; a retraining is due once what the champion loses by it, less half of `regret` a look,
    has added up to the share `regret` of its loss. One is due too once the history has `growth` times the
    rows that the champion can have learned from and newer ones help quick models. `effort` "auto" begins with
    a refit of the champion's members, goes on to a warm search where a challenger was not good enough (or
    there are `growth` times the rows that the configurations were chosen by), then to a full one; and refits
    where nothing is wrong, as long as newer rows are known to help.

    A retraining is due too `every` so often, at `cron` (of the IANA `timezone`), `after_rows` rows with new
    labels, when what the champion learned from is older than `max_age`, with `windows` when so many of the
    last windows were bad, when the mean value falls by the share `value_drop`, with `estimated` when the loss
    that is expected without labels rises, with `on_data` when a table has changed. A feature whose population
    stability index is above `drift` asks for a look before it is due. `when` joins these by "and", "or" and
    parentheses, as in "loss or (estimate and drift)"; None: each by itself, but drift. With `usd_per_loss`,
    what a unit of the bounded loss costs in one prediction, a fall is answered where staying costs more.
    Once the retrainings of 30 days came to `usd_per_30d`, the next waits, but for one that was asked for.
    """

    every: timedelta | None = None
    cron: str | None = None
    timezone: str = "UTC"
    look: timedelta | None = timedelta(days=7)
    regret: float | None = 0.02
    growth: float | None = 2.0
    tolerance: float = 0.01
    alpha: float = 0.05
    windows: BadWindowSettings | None = None
    value_drop: float | None = None
    estimated: bool = False
    drift: float | None = None
    after_rows: int | None = None
    max_age: timedelta | None = None
    on_data: bool = False
    when: str | None = None
    usd_per_loss: float | None = None
    usd_per_30d: float | None = None
    cooldown: timedelta = timedelta(days=7)
    max_attempts: int = 3
    effort: Literal["auto", "refit", "reweight", "warm", "full"] = "auto"

    def __post_init__(self) -> None:
        require(self.tolerance >= 0, "tolerance", "at least 0 (a rise of the bounded loss)", self.tolerance)
        require(0 < self.alpha < 0.5, "alpha", "in (0, 0.5)", self.alpha)
        require(self.regret is None or self.regret > 0, "regret", "a share above 0", self.regret)
        require(self.growth is None or self.growth >= 1.2, "growth", "at least 1.2 times", self.growth)
        require(self.look is None or self.look > timedelta(0), "look", "longer than nothing", self.look)
        require(self.max_attempts >= 1, "max_attempts", "at least 1", self.max_attempts)
        require(
            self.cron is None or len(self.cron.split()) == 5,
            "cron",
            "five fields such as '0 3 * * 1'",
            self.cron,
        )
        drop, age, usd = self.value_drop, self.max_age, self.usd_per_loss
        require(usd is None or usd > 0, "usd_per_loss", "above 0 USD", usd)
        budget = self.usd_per_30d
        require(budget is None or budget > 0, "usd_per_30d", "above 0 USD", budget)
        require(drop is None or 0 < drop < 1, "value_drop", "a share in (0, 1)", drop)
        require(
            self.drift is None or self.drift > 0,
            "drift",
            "a stability index above 0, such as 0.25",
            self.drift,
        )
        require(self.after_rows is None or self.after_rows >= 1, "after_rows", "at least 1", self.after_rows)
        require(age is None or age > timedelta(0), "max_age", "longer than nothing", age)
        try:
            find_zone(self.timezone)
        except ValueError as err:
            raise DecodeError(f"timezone must be an IANA name: {err}", ("timezone",)) from err
        self._require_triggers()
        self._require_looks()

    @property
    def condition(self) -> Condition | None:
        """What `when` says; None where each trigger counts by itself."""
        return None if self.when is None else parse_condition(self.when, TRIGGERS)

    @property
    def is_set(self) -> frozenset[str]:
        """The triggers that can come to hold."""
        regret = self.look is not None and self.regret is not None
        told = {
            "loss": True,
            "regret": regret,
            "fresh": regret and self.effort == "auto",
            "growth": regret and self.growth is not None,
            "windows": self.windows is not None,
            "value": self.value_drop is not None,
            "estimate": self.estimated,
            "drift": self.drift is not None,
            "schedule": self.every is not None or self.cron is not None,
            "rows": self.after_rows is not None,
            "age": self.max_age is not None,
            "data": self.on_data,
        }
        return frozenset(name for name, there in told.items() if there)

    def _require_triggers(self) -> None:
        try:
            condition = self.condition
        except ValueError as err:
            raise DecodeError(f"when cannot be read: {err}", ("when",)) from err
        for name in condition.names if condition is not None else ():
            if name not in self.is_set:
                rule = f"when names {name!r}, which never holds: set retrain.{_SET_BY[name]} too"
                raise DecodeError(rule, ("when",))

    def _require_looks(self) -> None:
        """Refuse what looks alone give a meaning to where none are taken."""
        if self.usd_per_loss is not None and (self.look is None or self.regret is None):
            rule = (
                "usd_per_loss weighs what looks find: it needs retrain.look, retrain.regret, spine.event_time"
            )
            raise DecodeError(rule, ("usd_per_loss",))
