"""Which settings of the policy would have served best: chosen on a history's head, shown on its tail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from raywf.core.duration import format_duration
from raywf.loop.backtest.course import Course, mean_loss
from raywf.loop.backtest.run import Backtest

HEAD = 0.7  # of the steps
_NEAR = 0.05  # of the best gain: of policies that lack no more than that the cheapest is chosen
_REGRETS = (0.01, 0.02, 0.05, 0.1)
_LOOKS = (1, 2)  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A policy's figures on the head, by which it was chosen or not, and on the tail."""

    policy: str
    head_loss: float
    head_cpu_s: float
    tail_loss: float | None
    tail_cpu_s: float
    chosen: bool


def variants(step: timedelta) -> list[str]:
    """Return policies to choose from, by how often they look and what they regret."""
    return [
        f"raywf look={format_duration(step * n)} cooldown={format_duration(step)} regret={regret:g}"
        for n in _LOOKS
        for regret in _REGRETS
    ]


def tune(found: Backtest) -> tuple[Tuned, ...]:
    """Choose the cheapest of raywf's policies that have 95 % of the best gain on the head, or lose least.

    What a policy did on the head is what it would have done, had history ended there.
    """
    cut = found.chances[max(1, int(HEAD * (len(found.chances) - 1)))]
    never = found.course("never")
    ours = [c for c in found.courses if c.policy.split()[0] == "raywf"]
    level = _loss(never, before=cut) if never else max(_loss(c, before=cut) or 0.0 for c in ours)
    heads = {c.policy: _loss(c, before=cut) for c in ours}
    gains = {p: (level or 0.0) - loss for p, loss in heads.items() if loss is not None}
    best = max(gains.values(), default=0.0)
    near = [c for c in ours if c.policy in gains and gains[c.policy] >= best - _NEAR * abs(best)]
    chosen = min(near, key=lambda c: (_cpu_s(c, before=cut), heads[c.policy]), default=None)
    return tuple(
        Tuned(
            policy=c.policy,
            head_loss=heads[c.policy] or 0.0,
            head_cpu_s=_cpu_s(c, before=cut),
            tail_loss=_loss(c, since=cut),
            tail_cpu_s=_cpu_s(c, since=cut),
            chosen=c is chosen,
        )
        for c in ours
        if heads[c.policy] is not None
    )


def _loss(course: Course, *, since: datetime | None = None, before: datetime | None = None) -> float | None:
    return mean_loss(
        [
            s
            for s in course.steps
            if (since is None or s.start >= since) and (before is None or s.start < before)
        ]
    )


def _cpu_s(course: Course, *, since: datetime | None = None, before: datetime | None = None) -> float:
    return sum(
        e.cpu_s
        for e in course.events
        if (since is None or e.time >= since) and (before is None or e.time < before)
    )
