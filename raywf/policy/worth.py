"""Is a retraining worth its price? What staying costs until the next chance, against what the last one took.

After CARA (Mahadevan and Mathioudakis, Knowledge-Based Systems 293, 2024), which weighs the staleness of each
query against the price of a training; here the staleness is measured by the looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from raywf.core.records import ModelVersion
from raywf.policy.question import Question
from raywf.policy.regret import is_match

WEIGHED = frozenset({"loss", "regret", "windows", "value", "estimate"})  # what a better model would answer
_SEEN = timedelta(days=28)  # of traffic, the newest
_SOONEST = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What the champion's excess loss costs until the next chance, and the price of a retraining, in USD."""

    staying: float
    price: float
    words: str

    @property
    def pays(self) -> bool:
        """Whether staying costs as much as a retraining."""
        return self.staying >= self.price


def judge_worth(asked: Question) -> Worth | None:
    """Weigh the two; None where `usd_per_loss` is not set, or nothing is known of loss, traffic or price.

    Excess: what the champion lost beside the quick model at the last look after the last change, in units of
    the bounded loss; that model is quick, and so the excess rather too small, and not known where it is no
    match for the champion. Traffic: that of the windows of the last four weeks, the time between them
    included. The next chance comes when the cooldown is over, in a day at the soonest. The price is what the
    last retraining of the same effort cost, or else the last of any, or the search that made the champion.
    """
    usd, champion, last = asked.settings.usd_per_loss, asked.history.champion, asked.history.last_change
    if usd is None or champion is None:
        return None
    price = _price(asked, champion)
    if price <= 0:
        return None
    looks = [p for p in asked.history.probes if p.version == champion.version and p.rows]
    looks = [p for p in looks if last is None or p.time > last]
    windows = asked.windows(since=asked.now - _SEEN)
    seconds = (windows[-1].end - windows[0].start).total_seconds() if windows else 0.0
    if not looks or not seconds:
        return None
    look = max(looks, key=lambda p: p.time)
    if not is_match(look):
        return None
    excess = max(0.0, look.champion - look.quick)
    rows = sum(w.rows for w in windows) / seconds * max(asked.settings.cooldown, _SOONEST).total_seconds()
    staying = excess * rows * usd
    sign = "as much as" if staying >= price else "less than"
    words = (
        f"an excess loss of {excess:.4f} on {rows:,.0f} predictions until the next chance costs "
        f"${staying:,.2f} at ${usd:g} each, {sign} a retraining (${price:,.2f})"
    )
    return Worth(staying=staying, price=price, words=words)


def _price(asked: Question, champion: ModelVersion) -> float:
    # one that failed did not do all of what the next would
    priced = [p for p in asked.history.ended if p.usd > 0 and p.stage != "failed"]
    alike = [p for p in priced if p.decision.effort == asked.effort]
    return next((p.usd for p in (*alike, *priced)), champion.cost_usd)
