"""Training gives way to serving on a shared machine.

Ray starts every worker at niceness 15, replicas too, so the processes beside them go first: whoever asks for
a swap took a replica's CPU in the second of the swap. Here the cluster's workers start at `SERVING`, and what
trains goes to the lowest priority by itself (a process may always give way, only root may come back).
"""

from __future__ import annotations

import os

SERVING = 0
TRAINING = 19


def yield_cpu() -> None:
    """Give this process the lowest priority, for good; the replicas beside it keep theirs."""
    os.nice(TRAINING - os.nice(0))
