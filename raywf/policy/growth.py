"""What asks for a retraining since there is more to learn from: rows, a longer history, age, tables."""

from __future__ import annotations

import math
from datetime import timedelta

from raywf.core.duration import format_duration
from raywf.policy.history import PastDecision
from raywf.policy.question import Question, Trigger, numbered, time_or

GROWTH, ROWS, AGE, DATA = "growth", "rows", "age", "data"
_RETRY = 10  # what is too old and was not replaced is tried again after this part of `max_age` at least


def offer_growth(asked: Question) -> Trigger | None:
    """Return whether the history is so many times what the champion may have learned from; None if not set.

    Regret does not tell of it where the champion's kind is far better than the quick one. So the last look is
    asked what newer rows do for quick models; what is within the regret that each look forgives is nothing.
    One that brought no new champion is tried again at each further root of `times`, for the gate has more
    rows then. The decision's window is the version and the growth that was reached.
    """
    times, regret, champion = asked.settings.growth, asked.settings.regret, asked.history.champion
    if times is None or regret is None or champion is None:
        return None
    looks = [p for p in asked.history.probes if p.version == champion.version and p.rows and p.growth]
    if not looks:
        return None
    look = max(looks, key=lambda p: p.time)
    assert look.growth is not None
    words = (
        f"the history is {look.growth:.1f} times what the champion can have learned from, of {times:g}, and "
        f"newer rows help quick models by {look.newer:.1%}"
    )
    halves = math.floor(2 * math.log(max(1.0, look.growth), times) + 1e-9)
    window = f"{champion.version} x{times ** (halves / 2):.2f}"
    due = halves >= 2 and look.newer >= regret / 2
    return Trigger(cause=GROWTH, words=words, due=due, window=window)


def offer_rows(asked: Question) -> Trigger | None:
    """Return whether so many rows got labels since the last change; None if not set.

    The rows are those of the champion's windows that came of age since, so that none counts before a change
    and after it too; where labels need no time a window counts from its first one on. The decision's window
    is the last change, so that there is one a change.
    """
    wanted, champion = asked.settings.after_rows, asked.history.champion
    if wanted is None or champion is None:
        return None
    since = asked.history.last_change
    ours = [e for e in asked.evidence if e.version == champion.version and e.has_aged(asked.now)]
    rows = sum(e.labelled for e in ours if since is None or e.judged_from > since)
    anchor = time_or(since, f"version {champion.version}")
    return Trigger(
        cause=ROWS,
        words=f"{rows:,} of {wanted:,} rows got labels since {anchor}",
        due=rows >= wanted,
        window=anchor,
    )


def offer_age(asked: Question) -> Trigger | None:
    """Return whether what the champion learned from is too old; None if not set.

    The decision's window is the champion's version. One that came to nothing is tried again, under a number,
    once the cooldown and a tenth of `max_age` have passed.
    """
    most, history, champion = asked.settings.max_age, asked.history, asked.history.champion
    if most is None or champion is None:
        return None
    until = champion.fitted_until or history.since
    if until is None:
        return Trigger(cause=AGE, words="nothing tells how old the champion is")
    age = asked.now - until
    days = age / timedelta(days=1)
    words = f"what the champion learned from is {days:.1f} days old, of {format_duration(most)}"
    tries = _tries(asked, AGE, champion.version)
    waits = any(asked.now < made.decision.time + most / _RETRY for made in tries)
    if tries:
        words += f" (tries in vain: {len(tries)})"
    window = numbered(champion.version, len(tries))
    return Trigger(cause=AGE, words=words, due=age > most and not waits, window=window)


def _tries(asked: Question, cause: str, window: str) -> list[PastDecision]:
    """Return the retrainings of a cause for the same window, whatever their number."""
    retrained = [p for p in asked.history.decisions if p.decision.kind == "retrain"]
    return [p for p in retrained if p.decision.cause == cause and p.decision.anchor == window]


def offer_data(asked: Question) -> Trigger | None:
    """Return whether tables have changed since the champion's snapshot; None if not set."""
    if not asked.settings.on_data:
        return None
    landed, tables = asked.history.landed, asked.history.landed_in
    if not landed:
        return Trigger(cause=DATA, words="no table is known to have changed since the champion's snapshot")
    named = ", ".join(tables) or "the tables"
    return Trigger(cause=DATA, words=f"new data landed in {named} ({landed})", due=True, window=landed)
