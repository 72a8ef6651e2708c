"""Training gives way to serving on a shared machine."""

from __future__ import annotations

import os

_LOWEST = 19


def yield_cpu() -> None:
    """Give this process the lowest priority, for good; the replicas beside it keep theirs."""
    os.nice(_LOWEST - os.nice(0))
