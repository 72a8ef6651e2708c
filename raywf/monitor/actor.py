"""The actor that keeps the fold up to the log."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import datetime, timedelta

from ray.util import metrics

from raywf.core.attribution import Attribution
from raywf.core.errors import RaywfError, SourceError
from raywf.core.metrics import Metric
from raywf.core.records import Evidence, Outcome
from raywf.core.rollout import Duel, RolloutStep
from raywf.core.settings import Workflow
from raywf.monitor.checkpoint import Checkpoints
from raywf.monitor.duels import DuelFold
from raywf.monitor.fold import Fold
from raywf.monitor.reference import Reference, ReferenceSource
from raywf.outcomes.column_reader import ColumnReader

_BATCH_BYTES = 500_000_000
_NEAR_BYTES = 500_000
_LOOK_S = 0.5
_SAVE_BYTES, _SAVE_S, _SAVE_SHARE = 16_000_000, 600.0, 0.05
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


class SaveTurn:
    """When a checkpoint is due: after so many bytes of the log, or minutes in which some came.

    Writing takes at most a share of the time, however large the state is.
    """

    def __init__(self) -> None:
        self._bytes, self._last, self._rest_s = 0, time.monotonic(), 0.0

    def count(self, read_bytes: int) -> None:
        """Take note of what was read."""
        self._bytes += read_bytes

    @property
    def has_come(self) -> bool:
        """Whether it is time to write one."""
        since_s = time.monotonic() - self._last
        is_much = self._bytes >= _SAVE_BYTES or (self._bytes > 0 and since_s >= _SAVE_S)
        return is_much and since_s >= self._rest_s

    def end(self, took_s: float) -> None:
        """Begin anew: one was written, or could not be."""
        self._bytes, self._last, self._rest_s = 0, time.monotonic(), took_s / _SAVE_SHARE


class MonitorActor:
    """Polls the log in a thread of its own and answers for the fold; made a Ray actor by its caller.

    Started again it goes on from its last checkpoint, or folds the log from its beginning, and comes to the
    same state. An answer waits at most for the first reading of the log, later for some thousand lines of it;
    give the Ray actor a `max_concurrency` above 1, so that `pid` need not wait.
    """

    def __init__(self, workflow: Workflow, references: ReferenceSource, metric: Metric) -> None:
        self._reader = ColumnReader(workflow.stores.root, workflow.name)
        self._references = PatientReferences(references)
        self._settings, self._metric = workflow.monitor, metric
        self._checkpoints = Checkpoints(self._reader.folder, workflow.monitor, metric=metric)
        self._fold = Fold(workflow.monitor, self._references, metric=metric)
        self._outcomes: dict[str, Outcome] = {}  # of the duels' rows, while they are asked for
        self._duels = self._no_duels()
        self._poll_s = workflow.monitor.poll_s
        self._cursor: dict[str, int] = {}
        self._turn = SaveTurn()
        self._lock = threading.Lock()
        self._caught_up = threading.Event()
        self._stopped = threading.Event()
        self._error = ""
        self._unread = _unread_gauge(workflow.name)
        threading.Thread(target=self._run, name="raywf-monitor", daemon=True).start()

    def evidence(self, version: str) -> tuple[Evidence, ...]:
        """Return the version's windows in time order, once the log was read to its end a first time."""
        self._await_log()
        with self._lock:
            return self._fold.evidence(version)

    def attribution(self, version: str) -> Attribution | None:
        """Return what the change of the version's loss since its promotion comes from; None if not known."""
        self._await_log()
        with self._lock:
            return self._fold.attribution(version)

    def duels(self, step: RolloutStep, bake: timedelta, now: datetime) -> tuple[Duel, ...]:
        """Return each challenger of a step beside the champion, once the log was read to its end."""
        self._await_log()
        with self._lock:
            self._outcomes = self._fold.outcomes(self._duels.ids)
            found = self._duels.duels(step, bake, now)
            self._outcomes = {}
            return found

    def versions(self) -> tuple[str, ...]:
        """Return the versions that have evidence."""
        with self._lock:
            return self._fold.versions

    def watermark(self) -> datetime | None:
        """Return the greatest event time in the log, once it was read to its end a first time."""
        self._await_log()
        with self._lock:
            return self._fold.watermark

    def counts(self) -> dict[str, int]:
        """Return the fold's totals and the log's lines that could not be read."""
        self._await_log()
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

    def _await_log(self) -> None:
        """Wait until the log was read to its end a first time: part of it would be told as if it were all.

        Raises:
            SourceError: if it cannot be read.
        """
        while not self._caught_up.wait(_LOOK_S):
            if self._error:
                raise SourceError(f"the outcome log cannot be read: {self._error}")

    def _run(self) -> None:
        self._go_on()
        while not self._stopped.is_set():
            behind = False
            try:
                behind = self._read_on()
                self._error = ""
                if not behind:
                    self._caught_up.set()
            except Exception as err:  # noqa: BLE001  # nothing above this thread would see it; it must poll on
                self._error = f"{type(err).__name__}: {err}"
                _log.exception("the monitor could not fold the log")
            if not behind:
                self._stopped.wait(self._poll_s)

    def _no_duels(self) -> DuelFold:
        values = self._settings.values
        return DuelFold(self._references, lambda identity: self._outcomes.get(identity), values=values)

    def _go_on(self) -> None:
        """Take the last checkpoint up; without one, or with one that is no good, begin at the log's start."""
        try:
            found = self._checkpoints.load(self._references)
            if found is None:
                return
            duels = self._no_duels()
            duels.restore(found.beside["duels"])
            corrupt = int(found.beside["corrupt_lines"])
        except Exception as err:  # noqa: BLE001  # whatever is wrong with it, the log is the truth
            _log.warning("the monitor's checkpoint is left aside, the log is read from its start: %s", err)
            return
        with self._lock:
            self._fold = Fold(self._settings, self._references, metric=self._metric, state=found.state)
            self._duels, self._cursor, self._reader.corrupt_lines = duels, found.cursor, corrupt

    def _read_on(self) -> bool:
        """Fold what is new; return whether the log's end is still far. Windows close only near its end."""
        for columns, cursor in self._reader.columns(self._cursor, max_bytes=_BATCH_BYTES):
            with self._lock:
                self._fold.take(columns)
                self._duels.update(columns.rollout_entries(self._duels.step))
            self._turn.count(sum(cursor.values()) - sum(self._cursor.values()))
            self._cursor = cursor
            if self._turn.has_come:
                self._save()
            if self._stopped.is_set():
                break
        unread = self._reader.unread_bytes(self._cursor)
        self._unread.set(unread)
        behind = unread > _NEAR_BYTES
        with self._lock:
            self._fold.update((), settle=not behind)
        if not behind and self._turn.has_come:
            self._save()
        return behind

    def _save(self) -> None:
        """Write a checkpoint; only this thread brings new records, so that answers need not wait for it."""
        began = time.monotonic()
        beside = {"duels": self._duels.data(), "corrupt_lines": self._reader.corrupt_lines}
        try:
            for version in self._fold.versions:
                self._fold.evidence(version)  # so that one who starts again need not sum it up
            self._checkpoints.save(self._fold.state, self._cursor, beside)
        except OSError as err:
            _log.warning("the monitor's checkpoint cannot be written: %s", err)
        self._turn.end(time.monotonic() - began)
