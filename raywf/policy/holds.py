"""What holds a retraining back that nobody asked for: the cooldown, a back-off, a budget that is spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from raywf.core.clock import format_time
from raywf.policy.question import Question

BUDGET_SPAN = timedelta(days=30)
_TRIED = 3  # rejected retrainings, a refit and two searches, until it is thought that the next will be too
_LONGEST = 8  # times the cooldown
_RETRY, _DOUBLED = timedelta(hours=1), 7  # after a failure, and how often it is doubled at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why to wait, and until when."""

    cause: str
    until: datetime
    words: str


def held_back(asked: Question) -> Hold | None:
    """Return what holds retrainings and looks back at present; None where nothing does.

    After one that failed by itself, which was not judged and begins no cooldown, it is tried again an hour
    later, then after two, four and so on. After each rejected retraining from the third in a row on the
    cooldown is twice as long as before, up to eight times. The budget counts the searches of retrainings
    decided in the last 30 days that ended, well or not.
    """
    failures = asked.history.failures
    if failures:
        until = failures[0].decision.time + _RETRY * 2 ** min(_DOUBLED, len(failures) - 1)
        if asked.now < until:
            words = f"the last retraining failed: the next not before {format_time(until)}"
            return Hold(cause="failed", until=until, words=words)
    last, refused = asked.history.last_tried, asked.history.refused
    times = min(_LONGEST, 2 ** max(0, refused - _TRIED + 1))
    if last is None or asked.now >= last + asked.settings.cooldown * times:
        return budget_spent(asked)
    until = last + asked.settings.cooldown * times
    if times == 1:
        return Hold(cause="cooldown", until=until, words=f"cooling down until {format_time(until)}")
    words = f"{refused} retrainings in a row were in vain: backing off until {format_time(until)}"
    return Hold(cause="backoff", until=until, words=words)


def budget_spent(asked: Question) -> Hold | None:
    """Return whether, and until when, the budget holds retrainings back."""
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
