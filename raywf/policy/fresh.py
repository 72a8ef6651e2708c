"""Refits as long as they pay: what the gate or a look has shown newer rows to be worth, taken cheaply.

A retraining that answers a fall waits until something is lost. Where the last refit was better for knowing
newer rows there is little to wait for: a refit takes a small part of a search, and the gate judges it.
"""

from __future__ import annotations

from raywf.core.probe import Probe
from raywf.policy.history import FRESH
from raywf.policy.question import Question, Trigger, numbered

_SURE = 2.0  # standard errors


def offer_fresh(asked: Question) -> Trigger | None:
    """Return whether newer rows are known to help the champion's kind; None where the effort is not "auto".

    They are where the gate has shown the champion itself to be better than the one before it, until a refit
    brings nothing; and where the last look has shown quick models to gain by newer rows, surely and by at
    least half of `regret`. A look at the champion comes first in any case. From the second one that brought
    nothing on the next waits for twice as long each time. The decision's window is the champion's version.
    """
    settings, history = asked.settings, asked.history
    champion, last = history.champion, history.last_tried
    if settings.effort != "auto" or settings.look is None or settings.regret is None or champion is None:
        return None
    looks = [p for p in history.probes if p.version == champion.version and p.rows >= asked.min_labelled]
    looks = [p for p in looks if last is None or p.time > last]
    if not looks:
        return None
    look = max(looks, key=lambda p: p.time)
    mine = [p.decision for p in history.retrainings if p.decision.anchor == champion.version]
    tries = sum(decision.cause == FRESH for decision in mine)
    waits = last is not None and asked.now < last + settings.look * 2 ** max(0, tries - 1)
    made = next((p for p in history.retrainings if p.decision.id == champion.decision_id), None)
    goes_on = not tries and not history.vain and made is not None and made.is_better
    helps = goes_on or (look.newer >= settings.regret / 2 and _is_sure(look))
    words = f"newer rows help quick models by {look.newer:.1%}"
    if goes_on:
        words = f"version {champion.version} was better than the one before, and there are newer rows by now"
    window = numbered(champion.version, tries)
    return Trigger(cause=FRESH, words=words, due=helps and not waits, window=window)


def _is_sure(look: Probe) -> bool:
    return look.newer_error is not None and look.newer > _SURE * look.newer_error
