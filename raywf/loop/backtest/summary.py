"""A policy's figures in one line: what a backtest is done for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raywf.loop.backtest.course import Course
from raywf.loop.backtest.run import Backtest, Delay


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a policy fared: the workflow's metric over time, in its own sign, and what was done for it.

    `gain` is the share of the best policy's, None without "never"; `vain` counts what was rejected or did no
    better; `late` is beside the oracle's moments; `value` is what an answer earned on average. Figures that
    nothing tells are None.
    """

    policy: str
    metric: float | None
    gain: float | None
    retrainings: int
    promoted: int
    looks: int
    vain: int
    late: Delay | None
    cpu_s: float
    cost_usd: float
    value: float | None


def summarise(made: Backtest) -> tuple[Summary, ...]:
    """Return a summary of each policy, in their order."""
    return tuple(_summary(made, course) for course in made.courses)


def _summary(made: Backtest, course: Course) -> Summary:
    metric = -course.loss if made.greater_is_better else course.loss
    return Summary(
        policy=course.policy,
        metric=None if math.isnan(metric) else metric,
        gain=made.gain(course),
        retrainings=course.count("retrain"),
        promoted=course.count("retrain", "promoted"),
        looks=course.count("probe"),
        vain=course.vain,
        late=made.delay(course),
        cpu_s=course.cpu_s,
        cost_usd=course.cost_usd,
        value=course.value,
    )
