"""Has new data landed? The tables' versions beside those that the champion's snapshot was built from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from raywf.core.errors import RaywfError
from raywf.core.ids import stable_id
from raywf.core.records import ModelVersion
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.snapshots.catalog import load_snapshot
from raywf.snapshots.sources import find_source

_log = logging.getLogger(__name__)
_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Landed:
    """Which tables are others than they were, and an id of all tables' versions."""

    id: str
    tables: tuple[str, ...]


class TableWatch:
    """Lists the workflow's tables once a minute at most; `clock` tells seconds, for timing alone.

    Nothing has landed while a table changes from one listing to the next: it may be half written.
    """

    def __init__(self, workflow: Workflow, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._workflow, self._clock = workflow, clock
        self._paths = {"spine": workflow.spine.path}
        self._paths |= {name: view.path for name, view in workflow.features.views.items()}
        self._looked = -_EVERY_S
        self._versions: dict[str, str] = {}
        self._settled = False
        self._built: tuple[str, dict[str, str]] = ("", {})  # of which snapshot
        self._told = ""  # the error that is in the log already

    def landed(self, champion: ModelVersion) -> Landed | None:
        """Return what has landed since the champion's snapshot; None also where a table cannot be read."""
        if not self._workflow.retrain.on_data:
            return None
        try:
            if self._clock() >= self._looked + _EVERY_S:
                self._look()
            built = self._of_snapshot(champion.snapshot_id)
        except (RaywfError, OSError, pa.ArrowException) as err:
            self._settled = False
            self._tell(str(err))
            return None
        self._told = ""
        return compare(self._versions, built) if self._settled else None

    def _look(self) -> None:
        first, self._looked = not self._versions, self._clock()
        versions = {name: find_source(path, name=name).version for name, path in self._paths.items()}
        self._settled = not first and versions == self._versions
        self._versions = versions

    def _of_snapshot(self, snapshot_id: str) -> dict[str, str]:
        if self._built[0] != snapshot_id:
            store = Store(self._workflow.stores.root)
            snapshot = load_snapshot(store, self._workflow.name, snapshot_id)
            self._built = snapshot_id, {source.name: source.version for source in snapshot.sources}
        return self._built[1]

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            _log.warning("it cannot be told whether new data landed: %s", problem)
        self._told = problem


def compare(versions: Mapping[str, str], built: Mapping[str, str]) -> Landed | None:
    """Return which tables are others than the snapshot was built from, None if none is.

    >>> compare({"spine": "a", "prices": "c"}, {"spine": "a", "prices": "b"}).tables
    ('prices',)
    >>> compare({"spine": "a"}, {"spine": "a", "gone": "b"}) is None
    True
    """
    changed = tuple(name for name, version in versions.items() if built.get(name) != version)
    return Landed(stable_id(dict(versions)), changed) if changed else None
