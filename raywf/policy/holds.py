"""What holds a retraining back that nobody asked for: the cooldown, a back-off, a budget that is spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from raywf.core.clock import format_time
from raywf.policy.question import Question

BUDGET_SPAN = timedelta(days=30)
_TRIED = 3  # retrainings in vain, a refit and two searches, until it is thought that the next will be too
_LONGEST = 8  # times the cooldown


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why to wait, and until when."""

    cause: str
    until: datetime
    words: str


def held_back(asked: Question) -> Hold | None:
    """Return what holds retrainings and looks back at present; None where nothing does.

    After each retraining from the third in vain on, in a row, the cooldown is twice as long as before, up to
    eight times. The budget counts what the retrainings decided in the last 30 days came to.
    """
    last, vain = asked.history.last_change, asked.history.vain
    if last is not None:
        until = last + asked.settings.cooldown
        if asked.now < until:
            return Hold(cause="cooldown", until=until, words=f"cooling down until {format_time(until)}")
        until = last + asked.settings.cooldown * min(_LONGEST, 2 ** max(0, vain - _TRIED + 1))
        if asked.now < until:
            words = f"{vain} retrainings in a row were in vain: backing off until {format_time(until)}"
            return Hold(cause="backoff", until=until, words=words)
    return _budget_spent(asked)


def _budget_spent(asked: Question) -> Hold | None:
    budget = asked.settings.usd_per_30d
    if budget is None:
        return None
    recent = [p for p in asked.history.retrainings if p.decision.time > asked.now - BUDGET_SPAN]
    spent = sum(p.usd for p in recent)
    if spent < budget:
        return None
    left, until = spent, asked.now
    for past in recent:
        left -= past.usd
        until = past.decision.time + BUDGET_SPAN
        if left < budget:
            break
    words = (
        f"the retrainings of the last 30 days cost ${spent:,.2f}, of ${budget:,.2f} that they may: "
        f"waiting until {format_time(until)}"
    )
    return Hold(cause="budget", until=until, words=words)
