"""The two-phase swap of the model in every replica, with no replica leaving the traffic.

Prepare on all, then `record` (the caller moves the alias), then commit on all, then verify. A failure before
`record` changes nothing anywhere. After it the alias is the truth: a replica that missed its commit gets it
again until the deadline, and converges by polling after that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from raywf.core.errors import ServingError
from raywf.core.records import ModelVersion
from raywf.serving.slots import ReplicaStatus

RETRY_S = 0.2
UNKNOWN = "unknown"  # the replica of a call that failed


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapReport:
    """A swap that is done: what served before, and what each replica took to prepare."""

    version: str
    previous: str
    replicas: tuple[ReplicaStatus, ...]
    prepare_s: float
    commit_s: float


def swap(
    app_name: str,
    version: ModelVersion,
    *,
    record: Callable[[], None] | None = None,
    timeout_s: float = 120.0,
) -> SwapReport:
    """Make every replica of an app serve the version.

    `record` is called once all replicas are ready and before any serves the version: it moves the alias.
    Works from a driver, a job, an actor's thread, and beside a running event loop (from a thread).

    Raises:
        ServingError: if a replica refuses (nothing has changed then), or does not serve the version at the
            deadline (the alias has moved then, and the replica follows it when it can).

    """
    start = time.monotonic()
    deadline = start + timeout_s
    prepared = _prepare(app_name, version, deadline=deadline)
    refused = [status for status in prepared if not status.ok]
    if refused:
        _abort(app_name, version)
        raise ServingError(f"version {version.version} was not swapped in: {_reasons(refused)}")
    if record is not None:
        try:
            record()
        except BaseException:  # whatever stopped the alias, what is prepared serves nobody
            _abort(app_name, version)
            raise
    ready = time.monotonic()
    _commit(app_name, version, deadline=deadline)
    return SwapReport(
        version=version.version,
        previous=prepared[0].version,
        replicas=tuple(prepared),
        prepare_s=ready - start,
        commit_s=time.monotonic() - ready,
    )


def _prepare(app_name: str, version: ModelVersion, *, deadline: float) -> list[ReplicaStatus]:
    """Prepare on all; a replica that died meanwhile is no refusal: ask those that are there again."""
    while True:
        prepared = broadcast(app_name, "prepare", version, deadline=deadline)
        died = any(s.replica == UNKNOWN for s in prepared)
        refused = any(not s.ok and s.replica != UNKNOWN for s in prepared)
        if not died or refused or time.monotonic() >= deadline:
            return prepared
        time.sleep(RETRY_S)


def broadcast(app_name: str, verb: str, *args: Any, deadline: float) -> list[ReplicaStatus]:
    """Call a swap verb on every running replica; one status each, not ok where the call failed.

    Raises:
        ServingError: as `call_replicas`.
    """
    return [_status(result) for result in call_replicas(app_name, verb, *args, deadline=deadline)]


def call_replicas(app_name: str, verb: str, *args: Any, deadline: float) -> list[Any]:
    """Call a method of every running replica, and return what each answered or raised.

    Raises:
        ServingError: if there is no such app, or no replica of it runs until the deadline
            (of `time.monotonic`).

    """
    while True:
        left = max(1.0, deadline - time.monotonic())
        try:
            call = _call(app_name, verb, *args, timeout_s=left)
            results = asyncio.run_coroutine_threadsafe(call, _loop()).result(left + 5)
        except (RayError, RayServeException, TimeoutError) as err:
            if time.monotonic() + RETRY_S >= deadline:
                raise ServingError(f"no replica of {app_name!r} answers {verb!r}: {err}") from err
        else:
            if results:
                return results
            if time.monotonic() + RETRY_S >= deadline:
                raise ServingError(f"app {app_name!r} has no running replica")
        time.sleep(RETRY_S)


def _commit(app_name: str, version: ModelVersion, *, deadline: float) -> None:
    while True:
        committed = broadcast(app_name, "commit", version.version, deadline=deadline)
        late = [s for s in committed if not s.ok or s.version != version.version]
        if not late:
            return
        if time.monotonic() >= deadline:
            raise ServingError(f"version {version.version} is not served everywhere: {_reasons(late)}")
        # A replica that came up between the phases may have read the alias before it moved.
        broadcast(app_name, "prepare", version, deadline=deadline)
        time.sleep(RETRY_S)


def _abort(app_name: str, version: ModelVersion) -> None:
    try:
        broadcast(app_name, "abort", version.version, deadline=time.monotonic() + 5)
    except ServingError:
        return  # what is prepared in a replica that does not answer serves nobody


async def _call(app_name: str, verb: str, *args: Any, timeout_s: float) -> list[Any]:
    handle = serve.get_app_handle(app_name)
    response = handle.broadcast(verb, *args)
    results: list[Any] = await asyncio.wait_for(response.results_async(return_exceptions=True), timeout_s)
    return results


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return this process' loop for handles, running in a daemon thread.

    With RAY_SERVE_THROUGHPUT_OPTIMIZED=1 a handle lives in the loop that first used it and is cached by Ray,
    so that loop has to outlive each call and cannot be the caller's.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="raywf-swap", daemon=True).start()
    return loop


def _status(result: ReplicaStatus | BaseException) -> ReplicaStatus:
    if isinstance(result, ReplicaStatus):
        return result
    reason = f"{type(result).__name__}: {result}"
    return ReplicaStatus(replica=UNKNOWN, ok=False, version="", reason=reason)


def _reasons(statuses: Sequence[ReplicaStatus]) -> str:
    return "; ".join(f"{s.replica}: {s.reason or f'serves {s.version}'}" for s in statuses)
