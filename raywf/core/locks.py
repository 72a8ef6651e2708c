"""Locks on open files among the processes of a machine; each ends with its process."""

from __future__ import annotations

import fcntl


def claim(descriptor: int) -> bool:
    """Lock a file unless somebody else does; return whether it is ours.

    Raises:
        OSError: where the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(descriptor: int) -> None:
    """Give a lock back, also for a child that has the file from before."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
