"""Remembers searches and runs by hand from start to end, so that an interrupted one can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from raywf.core.clock import format_time, parse_time
from raywf.core.codec import encode
from raywf.core.errors import SearchError
from raywf.core.ids import stable_id
from raywf.core.journal import BY_HAND, FINAL, ROLLOUT, Journal
from raywf.core.records import Decision
from raywf.core.settings import SearchSettings, Workflow
from raywf.core.store import Store

# an interrupted search may go on with more of these, or less
_BOUNDS = ("budget_s", "max_cpu_s", "max_usd", "trials", "warm_share", "max_concurrent", "max_failures")
RUN = ("raywf run",)  # the reasons of a decision that the command carries out


def part_bounds(search: SearchSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that a search is known by, and its bounds, both as data."""
    settings = encode(search)
    bounds = {name: settings.pop(name) for name in _BOUNDS}
    return settings, bounds


@contextmanager
def remembered(workflow: Workflow, as_of: datetime | None, *, resumes: bool = False) -> Iterator[None]:
    """Keep the instant that a search looks from until it has ended well, beside those of other searches.

    One that `resumes` is the one that `interrupted_as_of` told of, even if settings were changed meanwhile.
    """
    store, mark = Store(workflow.stores.root), _mark(workflow, as_of)
    former = _newest(workflow) if resumes else None
    told = {"as_of": format_time(as_of) if as_of else None, "begun": format_time(datetime.now(UTC))}
    store.write(f"{_folder(workflow)}/{mark}", json.dumps(told).encode())
    yield
    for name in {mark, former[0] if former else mark}:
        store.drop(f"{_folder(workflow)}/{name}")


def interrupted_as_of(workflow: Workflow) -> datetime | None:
    """Return the instant that the newest interrupted search looked from; None where the table has no times.

    Raises:
        SearchError: if no search was interrupted.
    """
    found = _newest(workflow)
    if found is None:
        raise SearchError(f"no search of {workflow.name!r} was interrupted; start one without --resume")
    return parse_time(found[1]["as_of"]) if found[1]["as_of"] else None


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


def _newest(workflow: Workflow) -> tuple[str, dict[str, Any]] | None:
    """Return the mark of the search that began last among those that have not ended well, with its name."""
    store, folder, found = Store(workflow.stores.root), _folder(workflow), []
    for name in store.list(folder):
        with suppress(FileNotFoundError):  # it has just ended
            found.append((name, json.loads(store.read(f"{folder}/{name}"))))
    return max(found, key=lambda item: parse_time(item[1]["begun"]), default=None)


def _mark(workflow: Workflow, as_of: datetime | None) -> str:
    """Return the name of a search's mark, which stays where only its bounds change, as its id does."""
    settings, _ = part_bounds(workflow.search)
    return stable_id(format_time(as_of) if as_of else None, settings, workflow.metric) + ".json"


def _folder(workflow: Workflow) -> str:
    return f"searches/{workflow.name}"
