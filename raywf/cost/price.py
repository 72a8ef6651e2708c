"""What a search cost: CPU-seconds times the price of a CPU-hour."""

from __future__ import annotations


def cpu_cost_usd(cpu_s: float, *, usd_per_cpu_hour: float) -> float:
    """Return the price of CPU-seconds.

    >>> round(cpu_cost_usd(3600, usd_per_cpu_hour=0.05), 3)
    0.05
    """
    return cpu_s / 3600 * usd_per_cpu_hour
