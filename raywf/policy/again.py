"""A refit that was refused is followed by a search at once: what it answered is there still."""

from __future__ import annotations

from datetime import timedelta

from raywf.policy.history import AGAIN
from raywf.policy.holds import budget_spent
from raywf.policy.question import Choice, Question
from raywf.policy.worth import WEIGHED

_LEAST = timedelta(days=1)
_SWAPS = frozenset({"promote", "rollback"})


def offer_again(asked: Question) -> Choice | None:
    """Offer the search after a refit that answered a fall and that was refused; None where there is none.

    It does not wait for the cooldown, which begins anew with it: a refit is the cheap part of one answer. So
    it has one search, as long as that cooldown goes on (a day at least); later the triggers ask anew. Not
    where another version came meanwhile, nor where `usd_per_loss` weighs each retraining by the look before
    it. The decision's window is the refit's id.
    """
    history, settings = asked.history, asked.settings
    last = next(iter(history.ended), None)
    if settings.effort != "auto" or settings.usd_per_loss is not None or last is None:
        return None
    refit = last.decision
    if last.stage != "rejected" or refit.effort != "refit" or refit.cause not in WEIGHED:
        return None
    swaps = (p.decision.time for p in history.decisions if p.decision.kind in _SWAPS)
    is_old = asked.now >= refit.time + max(settings.cooldown, _LEAST)
    if is_old or any(time >= refit.time for time in swaps) or budget_spent(asked) is not None:
        return None
    words = f"the refit for {refit.cause} was refused, and what it was to answer is there still"
    return Choice("retrain", AGAIN, refit.id, (words,))
