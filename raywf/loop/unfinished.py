"""Remembers a search by hand from its start to its end, so that an interrupted one can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from raywf.core.clock import format_time, parse_time
from raywf.core.errors import SearchError
from raywf.core.settings import Workflow
from raywf.core.store import Store


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


def _store(workflow: Workflow) -> Store:
    return Store(workflow.stores.root)


def _path(workflow: Workflow) -> str:
    return f"searches/{workflow.name}.json"
