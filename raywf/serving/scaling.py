"""How many replicas there should be, by what they report; Ray Serve's controller calls `wanted_replicas`."""

from __future__ import annotations

import math
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from raywf.core.serving_settings import ServingSettings

BUSY, WAIT_S = "raywf_busy", "raywf_wait_s"  # what a replica reports
_TARGET = 0.6  # of a processor for each replica
_LOOK_BACK_S = 20.0


class ScaleByLoad:
    """Asks for so many replicas that each takes 60 % of a processor, and one more where requests wait.

    Ray Serve's own count of requests under way says little here: most are answered before it counts them.
    """

    def __init__(self, longest_wait_s: float) -> None:
        self._longest_s = longest_wait_s

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the wanted number of replicas, by Ray Serve's context; it bounds and delays that."""
        found = ctx.aggregated_metrics or {}
        busy, waits = found.get(BUSY, {}).values(), found.get(WAIT_S, {}).values()
        wanted = wanted_replicas(
            int(ctx.current_num_replicas),
            busy=sum(busy),
            wait_s=max(waits, default=0.0),
            longest_wait_s=self._longest_s,
        )
        return wanted, {}


def wanted_replicas(now: int, *, busy: float, wait_s: float, longest_wait_s: float) -> int:
    """Return the number of replicas for a load of `busy` processors and a longest wait of `wait_s`.

    >>> wanted_replicas(2, busy=1.9, wait_s=0.0, longest_wait_s=0.1)
    4
    >>> wanted_replicas(2, busy=0.3, wait_s=0.5, longest_wait_s=0.1)
    3
    """
    wanted = max(1, math.ceil(busy / _TARGET))
    return max(wanted, now + 1) if wait_s > longest_wait_s else wanted


def autoscaling(settings: ServingSettings) -> AutoscalingConfig | None:
    """Return Ray Serve's settings for replicas as their load is; None where their number is fixed."""
    if settings.max_replicas is None:
        return None
    policy = AutoscalingPolicy(
        policy_function="raywf.serving.scaling:ScaleByLoad",
        policy_kwargs={"longest_wait_s": settings.max_wait_s / 4},
    )
    return AutoscalingConfig(
        min_replicas=settings.replicas,
        initial_replicas=settings.replicas,
        max_replicas=settings.max_replicas,
        look_back_period_s=_LOOK_BACK_S,
        upscale_delay_s=settings.scale_up_after.total_seconds(),
        downscale_delay_s=settings.scale_down_after.total_seconds(),
        policy=policy,
    )
