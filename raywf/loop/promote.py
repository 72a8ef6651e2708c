"""Moves the champion alias, and the traffic with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import ray

from raywf.core.clock import format_time
from raywf.core.errors import RegistryError, ServingError
from raywf.core.ids import stable_id
from raywf.core.journal import BY_HAND, Journal
from raywf.core.records import Decision, ModelVersion
from raywf.core.settings import Workflow
from raywf.registry.registry import PREVIOUS, Registry
from raywf.serving.deploy import app_name, status
from raywf.serving.swap import SwapReport, swap

_SERVING = frozenset({"RUNNING", "DEPLOYING", "UNHEALTHY"})  # replicas being replaced serve too


def promote(
    workflow: Workflow,
    registry: Registry,
    version: ModelVersion,
    *,
    claim: Callable[[], None] | None = None,
) -> SwapReport | None:
    """Make a version the champion; where the endpoint is up, by a two-phase swap, whose report is returned.

    `claim` is called once all replicas are ready and before the alias moves; what it raises stops that.

    Raises:
        ServingError: if a replica refuses the version; the alias has not moved then.
    """

    def move() -> None:
        if claim is not None:
            claim()
        registry.promote(version.version)

    if not is_serving(workflow):
        move()
        return None
    return swap(app_name(workflow), version, record=move)


def promote_by_hand(workflow: Workflow, registry: Registry, version: ModelVersion) -> None:
    """Promote a version because a user says so; the journal has it as a decision.

    Raises:
        ServingError: as `promote`.
    """
    _decided(workflow, "promote", version, lambda: promote(workflow, registry, version))


def rollback(workflow: Workflow, registry: Registry) -> ModelVersion:
    """Make the former champion the champion again; return it.

    Raises:
        RegistryError: if there is no former champion.
        ServingError: if a replica refuses it.
    """
    former = registry.find(PREVIOUS)
    if former is None:
        raise RegistryError(f"{workflow.name!r} has no previous champion to roll back to")
    failed = registry.resolve("champion")
    _decided(workflow, "rollback", former, lambda: promote(workflow, registry, former), failed=failed.version)
    registry.mark(failed.version, "rolled_back")
    registry.forget_previous()
    return registry.resolve("champion")


def is_serving(workflow: Workflow) -> bool:
    """Return whether the endpoint runs on the Ray cluster that this process is connected to."""
    if not ray.is_initialized():
        return False
    try:
        return bool(status(workflow)["status"] in _SERVING)
    except ServingError:
        return False


def _decided(
    workflow: Workflow,
    kind: Literal["promote", "rollback"],
    version: ModelVersion,
    act: Callable[[], object],
    **figures: str,
) -> None:
    journal, now = Journal(workflow.stores.root, workflow.name), datetime.now(UTC)
    reason = f"{kind} to version {version.version} by hand"
    decision = Decision(
        id=stable_id(workflow.name, kind, BY_HAND, now.isoformat()),
        workflow=workflow.name,
        kind=kind,
        cause=BY_HAND,
        window=format_time(now),
        reasons=(reason,),
        time=now,
    )
    journal.decide(decision)
    try:
        act()
    except ServingError as err:
        journal.record(decision, "failed", reasons=(str(err),))
        raise
    figures = {"version": version.version, **figures}
    journal.record(decision, "promoted", reasons=(reason,), figures=figures)
