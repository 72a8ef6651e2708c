"""Training gives way to serving on a shared machine.

Ray starts every worker at niceness 15, replicas too, so the processes beside them go first: whoever asks for
a swap took a replica's CPU in the second of the swap. Here the cluster's workers start at `SERVING`, and what
trains goes to the lowest priority by itself (a process may always give way, only root may come back).
"""

from __future__ import annotations

import os
import sys

SERVING = 0
TRAINING = 19


def yield_cpu() -> None:
    """Give this thread, and those that it starts, the lowest priority for good; replicas keep theirs.

    On Linux it runs only while nothing else wants the core: at niceness 19 alone it has a share of a core
    that a replica wants, and is not put aside at once when a request comes.
    """
    os.nice(TRAINING - os.nice(0))
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
