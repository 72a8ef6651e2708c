"""Remembers searches and runs by hand from start to end, so that an interrupted one can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from raywf.core.clock import format_time, parse_time
from raywf.core.errors import SearchError
from raywf.core.journal import BY_HAND, FINAL, ROLLOUT, Journal
from raywf.core.records import Decision
from raywf.core.settings import Workflow
from raywf.core.store import Store

RUN = ("raywf run",)  # the reasons of a decision that the command carries out


@contextmanager
def remembered(workflow: Workflow, as_of: datetime | None) -> Iterator[None]:
    """Keep the instant that a search looks from until it has ended well."""
    text = json.dumps({"as_of": format_time(as_of) if as_of else None})
    _store(workflow).write(_path(workflow), text.encode())
    yield
    _store(workflow).write(_path(workflow), b"{}")


def interrupted_as_of(workflow: Workflow) -> datetime | None:
    """Return the instant that the interrupted search looked from; None where the table has no times.

    Raises:
        SearchError: if no search was interrupted.
    """
    try:
        kept = json.loads(_store(workflow).read(_path(workflow)))
    except FileNotFoundError:
        kept = {}
    if "as_of" not in kept:
        raise SearchError(f"no search of {workflow.name!r} was interrupted; start one without --resume")
    return parse_time(kept["as_of"]) if kept["as_of"] else None


def interrupted_run(workflow: Workflow) -> Decision:
    """Return the decision of the newest `raywf run`, which did not come to its end.

    Raises:
        SearchError: if no run was interrupted.
    """
    journal = Journal(workflow.stores.root, workflow.name)
    runs = [d for d in journal.decisions() if d.cause == BY_HAND and d.reasons == RUN]
    newest = max(runs, key=lambda d: d.window, default=None)
    if newest is None or (FINAL | {ROLLOUT}) & journal.stages(newest.id).keys():
        raise SearchError(f"no run of {workflow.name!r} was interrupted; start one without --resume")
    return newest


def _store(workflow: Workflow) -> Store:
    return Store(workflow.stores.root)


def _path(workflow: Workflow) -> str:
    return f"searches/{workflow.name}.json"
