"""Fits that the search's own process does: those that take less than a worker's start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import TypeVar

import ray

from raywf.core.niceness import yield_cpu
from raywf.search.own import Families

_TICK_S = 1.0
_GLOBAL = frozenset({"torch"})  # families whose fits set threads and seeds of the whole process
T = TypeVar("T")


def fitted_away(families: Families) -> frozenset[str]:
    """Return the families whose fits are never this process's own: the user's, and what others would see."""
    return frozenset(families.settings) | _GLOBAL


def may_fit_here(names: Iterable[str], families: Families, nodes: Mapping[str, str], threads: int) -> bool:
    """Return whether fits of families of these names may be this process's own.

    Not those that are `fitted_away`; nor where training is bound to
    nodes with labels, nor on a node that offers no CPUs for them, as a cluster's head may not.
    """
    if nodes or fitted_away(families) & set(names):
        return False
    mine = ray.get_runtime_context().get_node_id()
    offered = (n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["NodeID"] == mine)
    return bool(sum(offered) >= threads)


def fit_here(work: Callable[[], T], *, tick: Callable[[], None]) -> T:
    """Return what the work gives, done by a thread that gives way to others.

    `tick` is called each second and at the end. An interrupt does not wait for the thread.
    """
    found = Future[T]()

    def run() -> None:
        yield_cpu()
        try:
            found.set_result(work())
        except BaseException as err:  # noqa: BLE001 - it is raised where the work was asked for
            found.set_exception(err)

    threading.Thread(target=run, name="raywf-fit", daemon=True).start()
    while wait([found], timeout=_TICK_S).not_done:
        tick()
    tick()
    return found.result()
