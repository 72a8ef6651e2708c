"""The actor that keeps the fold up to the log."""

from __future__ import annotations

import logging
import os
import threading
from datetime import datetime, timedelta

from ray.util import metrics

from raywf.core.errors import RaywfError
from raywf.core.records import Evidence
from raywf.core.rollout import Duel, RolloutStep
from raywf.core.settings import Workflow
from raywf.monitor.duels import DuelFold
from raywf.monitor.fold import Fold
from raywf.monitor.reference import Reference, ReferenceSource
from raywf.outcomes.reader import LogReader

_BATCH_BYTES = 32_000_000
_READS = 16  # one read brings entries of one segment
_NEAR_BYTES = 500_000
_log = logging.getLogger(__name__)


class PatientReferences:
    """Asks a source that may be away: a version that cannot be looked up now is not known yet."""

    def __init__(self, source: ReferenceSource) -> None:
        self._source = source
        self._known: dict[str, Reference] = {}
        self._told: set[str] = set()

    def reference(self, version: str) -> Reference | None:
        """Return the version's reference, or None while the registry does not tell."""
        known = self._known.get(version)
        if known is not None:
            return known
        try:
            found = self._source.reference(version)
        except (RaywfError, OSError) as err:
            if version not in self._told:
                self._told.add(version)
                _log.warning("no reference of version %s yet: %s", version, err)
            return None
        if found is not None:
            self._known[version] = found
        return found


def _unread_gauge(workflow: str) -> metrics.Gauge:
    gauge = metrics.Gauge("raywf_log_unread_bytes", tag_keys=("workflow",))
    gauge.set_default_tags({"workflow": workflow})
    return gauge


class MonitorActor:
    """Polls the log in a thread of its own and answers for the fold; made a Ray actor by its caller.

    It keeps nothing: started again, it folds the log from its beginning and comes to the same state. An
    answer waits at most for the first reading of the log, later for one batch of it; give the Ray actor a
    `max_concurrency` above 1, so that `pid` need not wait.
    """

    def __init__(self, workflow: Workflow, references: ReferenceSource) -> None:
        self._reader = LogReader(workflow.stores.root, workflow.name)
        known = PatientReferences(references)
        self._fold = Fold(workflow.monitor, known, metric=workflow.metric)
        self._duels = DuelFold(known, self._fold.outcome)
        self._poll_s = workflow.monitor.poll_s
        self._cursor: dict[str, int] = {}
        self._lock = threading.Lock()
        self._caught_up = threading.Event()
        self._stopped = threading.Event()
        self._error = ""
        self._unread = _unread_gauge(workflow.name)
        threading.Thread(target=self._run, name="raywf-monitor", daemon=True).start()

    def evidence(self, version: str) -> tuple[Evidence, ...]:
        """Return the version's windows in time order, once the log was read to its end a first time."""
        self._caught_up.wait()
        with self._lock:
            return self._fold.evidence(version)

    def duels(self, step: RolloutStep, bake: timedelta, now: datetime) -> tuple[Duel, ...]:
        """Return each challenger of a step beside the champion, once the log was read to its end."""
        self._caught_up.wait()
        with self._lock:
            return self._duels.duels(step, bake, now)

    def versions(self) -> tuple[str, ...]:
        """Return the versions that have evidence."""
        with self._lock:
            return self._fold.versions

    def watermark(self) -> datetime | None:
        """Return the greatest event time in the log, once it was read to its end a first time."""
        self._caught_up.wait()
        with self._lock:
            return self._fold.watermark

    def counts(self) -> dict[str, int]:
        """Return the fold's totals and the log's lines that could not be read."""
        self._caught_up.wait()
        with self._lock:
            return self._fold.counts() | {"corrupt_lines": self._reader.corrupt_lines}

    def error(self) -> str:
        """Return what the last poll failed with; empty if it did not."""
        return self._error

    def pid(self) -> int:
        """Return the actor's process id."""
        return os.getpid()

    def stop(self) -> None:
        """End the polling thread after its present batch."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            behind = False
            try:
                behind = self._read_on()
                self._error = ""
            except Exception as err:  # noqa: BLE001  # nothing above this thread would see it; it must poll on
                self._error = f"{type(err).__name__}: {err}"
                _log.exception("the monitor could not fold the log")
            if not behind:
                self._caught_up.set()
                self._stopped.wait(self._poll_s)

    def _read_on(self) -> bool:
        """Fold what is new; return whether the log's end is still far. Windows close only near its end."""
        for _ in range(_READS):
            entries, self._cursor = self._fold_batch()
            if not entries:
                break
        unread = self._reader.unread_bytes(self._cursor)
        self._unread.set(unread)
        behind = unread > _NEAR_BYTES
        if not behind:
            with self._lock:
                self._fold.update(())
        return behind

    def _fold_batch(self) -> tuple[int, dict[str, int]]:
        entries, cursor = self._reader.read(self._cursor, max_bytes=_BATCH_BYTES)
        with self._lock:
            self._fold.update(entries, settle=False)
            self._duels.update(entries)
        return len(entries), cursor
