"""What a policy knows besides the evidence: who serves, what was decided, what is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from raywf.core.journal import BY_HAND
from raywf.core.probe import Probe
from raywf.core.records import Decision, ModelVersion

FRESH = "fresh"  # the cause of a refit that nothing is wrong for, see `raywf.policy.fresh`
AGAIN = "again"  # that of the search after a refit in vain, see `raywf.policy.again`
_ENDED = frozenset({"promoted", "rejected", "failed"})
_ASKED = frozenset({"request", BY_HAND})  # causes that are somebody's wish
_SEARCHES = frozenset({"warm", "full"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """A decision, the last stage that it reached, and what its searches cost, also those that failed.

    One that `is_stopped` failed since somebody stopped its job; of one that `is_better` the gate has shown
    the version to be better than the one before it.
    """

    decision: Decision
    stage: str
    usd: float = 0.0
    is_stopped: bool = False
    is_better: bool = False

    @property
    def has_failed(self) -> bool:
        """Whether it failed by itself: nothing was judged, and nobody wanted that."""
        return self.stage == "failed" and not self.is_stopped

    @property
    def was_cheap(self) -> bool:
        """Whether it was just done for being cheap, and gave no new champion."""
        return self.stage in _ENDED - {"promoted"} and is_cheap(self.decision)

    @property
    def is_refusal(self) -> bool:
        """Whether it was rejected, and neither somebody's wish nor just done for being cheap."""
        return self.stage == "rejected" and answers(self.decision)


def is_cheap(decision: Decision) -> bool:
    """Return whether a retraining is done for being cheap: a refit that nothing is wrong for."""
    return decision.cause == FRESH and decision.effort == "refit"


def answers(decision: Decision) -> bool:
    """Return whether a retraining answers something, so that one in vain says that something is wrong."""
    return decision.cause not in _ASKED and not is_cheap(decision)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The loop's past, in event time.

    `since` is when the champion was promoted, `last_retrain` when the last retraining was decided that did
    not fail by itself, `requests` are the reasons of a user's requests that wait, by id, oldest first.
    `probes` are the looks that came to an end. `landed` names the tables' versions where they are other ones
    than those of the champion's snapshot, and `landed_in` which tables.
    """

    champion: ModelVersion | None
    since: datetime | None = None
    decisions: tuple[PastDecision, ...] = ()
    running: bool = False
    last_retrain: datetime | None = None
    requests: Mapping[str, str] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    landed: str = ""
    landed_in: tuple[str, ...] = ()

    @property
    def retrainings(self) -> tuple[PastDecision, ...]:
        """The retrainings, oldest first."""
        found = (p for p in self.decisions if p.decision.kind == "retrain")
        # a search follows its refit within the same instant of event time
        return tuple(sorted(found, key=lambda p: (p.decision.time, p.decision.cause == AGAIN)))

    @property
    def ended(self) -> tuple[PastDecision, ...]:
        """The retrainings that came to an end, newest first."""
        return tuple(p for p in reversed(self.retrainings) if p.stage in _ENDED)

    @property
    def told(self) -> tuple[PastDecision, ...]:
        """Those that tell something of the next: neither failed ones nor cheap ones in vain."""
        return tuple(p for p in self.ended if not p.was_cheap and not p.has_failed)

    @property
    def failures(self) -> tuple[PastDecision, ...]:
        """The last retrainings in a row that failed by themselves, newest first."""
        return tuple(itertools.takewhile(lambda p: p.has_failed, self.ended))

    @property
    def vain(self) -> int:
        """How many of the last retrainings, in a row, gave no new champion."""
        return len(self._since_champion(self.told))

    @property
    def refused(self) -> int:
        """How many retrainings that answered something were rejected, in a row, since the champion came.

        Those that failed were not judged, and are passed over.
        """
        return sum(p.is_refusal for p in self._since_champion(self.ended))

    def _since_champion(self, newest_first: Iterable[PastDecision]) -> list[PastDecision]:
        """Return the retrainings up to the one that brought a champion, or after which one came by hand."""
        by_hand = (p for p in self.decisions if p.decision.kind == "promote" and p.stage == "promoted")
        came = max((p.decision.time for p in by_hand), default=None)
        own = None if self.champion is None else self.champion.decision_id

        def is_since(past: PastDecision) -> bool:
            brought = past.stage == "promoted" or past.decision.id == own
            return not brought and (came is None or past.decision.time > came)

        return list(itertools.takewhile(is_since, newest_first))

    @property
    def tells_growth(self) -> bool:
        """Whether looks tell how much the history has grown."""
        return any(p.growth is not None for p in self.probes)

    @property
    def growth_since_search(self) -> float:
        """How many times the rows that the last search can have had are known by now; 1 where no look tells.

        It is the champion's growth times those of the champions before it, each as the last look before its
        end told, back to the one that a search made.
        """
        if self.champion is None:
            return 1.0
        growth = _last_growth([p for p in self.probes if p.version == self.champion.version])
        brought = self._brought()
        for made, former in itertools.pairwise([*brought, None]):
            assert made is not None
            if made.effort in _SEARCHES:
                break
            looks = [p for p in self.probes if p.time <= made.time]
            growth *= _last_growth([p for p in looks if former is None or p.time > former.time])
        return growth

    @property
    def searched_in_vain(self) -> int:
        """How many searches were rejected since the last one that gave a champion, or one came by hand."""
        searches = (p for p in self.ended if p.decision.effort in _SEARCHES)
        return sum(p.stage == "rejected" for p in self._since_champion(searches))

    def _brought(self) -> list[Decision]:
        """Return the retrainings that brought the champion and those before it, newest first.

        None where no retraining brought the champion itself.
        """
        mine = None if self.champion is None else self.champion.decision_id
        found = [p.decision for p in self.ended if p.stage == "promoted" or p.decision.id == mine]
        own = [i for i, d in enumerate(found) if d.id == mine]
        return found[own[0] :] if own else []

    def has(self, decision_id: str) -> bool:
        """Return whether a decision of that id was made."""
        return any(past.decision.id == decision_id for past in self.decisions)

    @property
    def last_look(self) -> datetime | None:
        """When it was last decided to look whether a retraining would help."""
        return max((p.decision.time for p in self.decisions if p.decision.kind == "probe"), default=None)

    @property
    def told_until(self) -> datetime | None:
        """The later of the last change and the last look whose rows the next need not have again."""
        looks = [p.time for p in self.probes if not p.thin]
        return max((t for t in (*looks, self.last_change) if t is not None), default=None)

    @property
    def last_look_or_change(self) -> datetime | None:
        """The later of the last look and the last change."""
        return max((t for t in (self.last_look, self.last_change) if t is not None), default=None)

    @property
    def last_tried(self) -> datetime | None:
        """The later of the last retraining and the champion's promotion."""
        return max((time for time in (self.since, self.last_retrain) if time is not None), default=None)

    @property
    def last_change(self) -> datetime | None:
        """As `last_tried`, without cheap retrainings in vain: what was seen before them stands."""
        cheap = {p.decision.time for p in self.retrainings if p.was_cheap}
        others = {p.decision.time for p in self.retrainings if not p.was_cheap and not p.has_failed}
        if self.last_retrain not in cheap - others:
            return self.last_tried
        return max((time for time in (self.since, *others) if time is not None), default=None)


def _last_growth(looks: list[Probe]) -> float:
    """Return what the last look that could tell found of the history's growth."""
    told = [p for p in looks if p.growth is not None]
    return max(told, key=lambda look: look.time).growth or 1.0 if told else 1.0
