"""Would a retraining help? What the champion loses beside quick models of newer rows, added up.

The champion's own loss moves with the traffic, whether or not there is anything to learn; what another model
would have lost on the same rows does not tell of that, hence the regret. It is summed over the looks since
the champion came (a CUSUM; Page, Biometrika 1954): a little of it that lasts counts like much at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

from raywf.core.probe import Probe
from raywf.core.retrain_settings import RetrainSettings

_NO_MATCH = 0.1  # a quick model that is worse by this share of the champion's loss tells nothing of it
_LUCK = NormalDist().inv_cdf(1 - 0.2)  # standard errors that chance exceeds so often


@dataclass(frozen=True, slots=True, kw_only=True)
class RegretFinding:
    """The regret that has added up over `looks`, and the limit from which a retraining is due.

    `until` is when the last look was, None before the first one. `says_in_vain` says that by it a retraining
    would not help: the quick model was no better than the champion, though a match for it, and newer rows did
    nothing for its own kind.
    """

    looks: int
    total: float = 0.0
    limit: float = math.inf
    until: datetime | None = None
    says_in_vain: bool = False

    @property
    def due(self) -> bool:
        """Whether the regret is worth a retraining."""
        return self.total >= self.limit


def judge_regret(
    probes: Sequence[Probe], version: str, settings: RetrainSettings, *, since: datetime | None
) -> RegretFinding:
    """Add the champion's regret up over the looks after `since`; a sum never lies below 0.

    Half of `settings.regret` is forgiven at each look, lest chance add up where nothing changes.
    The limit is `settings.regret`, and no less than what chance exceeds once in five times, so that few rows
    do not decide: the gate then judges by more.
    """
    looks = sorted(
        (p for p in probes if p.version == version and p.rows and (since is None or p.time > since)),
        key=lambda p: p.time,
    )
    if settings.regret is None or not looks:
        return RegretFinding(looks=0)
    total = variance = 0.0
    for look in looks:
        total = max(0.0, total + look.regret - settings.regret / 2)
        variance = variance + look.regret_error**2 if total else 0.0
    chance = _LUCK * math.sqrt(variance)
    return RegretFinding(
        looks=len(looks),
        total=total,
        limit=max(settings.regret, chance),
        until=looks[-1].time,
        says_in_vain=_is_in_vain(looks[-1], settings.regret / 2),
    )


def is_match(look: Probe) -> bool:
    """Return whether the quick model is so good that it tells something of the champion."""
    return look.regret >= -_NO_MATCH


def _is_in_vain(look: Probe, little: float) -> bool:
    return is_match(look) and look.regret < little and look.newer < little
