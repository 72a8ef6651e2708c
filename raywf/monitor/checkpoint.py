"""What the monitor knows, on disk, so that one that starts again reads only what came since.

Below ``<log>/fold/`` lie files of rows and ``checkpoint.json``, which is replaced as a whole: a line with the
format and the digest of what follows, then the windows, each with its evidence and the place of its rows, and
how far the log was read. Rows that are as they were are not written again; of closed windows there is only
evidence. The log is the truth and a checkpoint saves time: one that cannot be relied on is left aside.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from raywf.core.clock import from_microseconds
from raywf.core.codec import decode, encode
from raywf.core.ids import digest_bytes
from raywf.core.metrics import Metric
from raywf.core.own import metric_id
from raywf.core.records import Drift, Evidence
from raywf.core.settings import MonitorSettings
from raywf.monitor.ends import ANSWERS, LABELS
from raywf.monitor.fold import FoldState
from raywf.monitor.labels import restored_pool
from raywf.monitor.reference import Reference, ReferenceSource
from raywf.monitor.rowfiles import FILE_ROWS, Place, RowFiles, rows_in
from raywf.monitor.rows import NOWHERE, Rows
from raywf.monitor.services import Services
from raywf.monitor.window import Window
from raywf.outcomes.columns import MICROSECOND, id_keys

FORMAT = 2
_NAME = "checkpoint.json"
_OLD_S = 60.0  # since when nobody reads a file that no checkpoint names
_MOST_FILES = 16
_FIGURES = [
    f.name
    for f in fields(Evidence)
    if f.name not in {"version", "start", "end", "drift", "labelled_share"}  # told apart, or by the settings
]
_OF_DRIFT = [f.name for f in fields(Drift)]  # which grow at their end too
_Data = dict[str, Any]


class CheckpointError(Exception):
    """A checkpoint cannot be relied on; it never leaves the process that reads it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A fold's state, how far it had read each segment, and what its owner keeps beside it."""

    state: FoldState
    cursor: dict[str, int]
    beside: _Data


class Checkpoints:
    """The checkpoints of the monitor of one log, whose folder is `log`; one process at a time writes them.

    `folder` is where they lie.
    """

    def __init__(self, log: Path, settings: MonitorSettings, *, metric: Metric) -> None:
        self._log, self.folder = log, log / "fold"
        self._length, self._share = settings.window // MICROSECOND, settings.labelled_share
        self._made_with: _Data = {
            "window": self._length,
            "horizon": settings.horizon // MICROSECOND,
            "min_labelled": settings.min_labelled,
            "metric": metric_id(metric),
            "key": int(id_keys(["raywf"])[0]),  # ids have the same keys still
        }
        if settings.values:
            self._made_with["values"] = settings.values
        self._files = RowFiles(self.folder)

    def save(self, state: FoldState, cursor: Mapping[str, int], beside: _Data) -> None:
        """Write a checkpoint; nobody may bring the fold new records meanwhile, asking it is no harm.

        Raises:
            OSError: if the disk refuses; the last checkpoint stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        table, windows = state.rows, list(state.windows.values())
        places = [window.saved for window in windows if window.saved is not None]
        is_whole = all((self.folder / name).exists() for name in {place.file for place in places})
        if _is_scattered(places) or not is_whole:
            for window in windows:
                window.saved = None
        changed = [window for window in windows if window.saved is None]
        written = self._files.write(table, [window.members(table) for window in changed])
        for window, place in zip(changed, written, strict=True):
            window.saved = place
        lost = np.flatnonzero(table.windows[: table.used] == NOWHERE)
        orphans = self._files.write(table, [lost[i : i + FILE_ROWS] for i in range(0, len(lost), FILE_ROWS)])
        used = {place.file for place in (*(w.saved for w in windows if w.saved is not None), *orphans)}
        self._files.digests = {n: digest for n, digest in self._files.digests.items() if n in used}
        versions = {window.version for window in windows}
        self._publish(
            {
                "made_with": self._made_with,
                "cursor": dict(cursor),
                "files": self._files.digests,
                "windows": [self._window_data(window, table) for window in windows],
                "orphans": orphans,
                "closed": [(v, n, _evidence_data(evidence)) for (v, n), evidence in state.closed.items()],
                "services": state.services.lines(),
                "known": {v: encode(reference) for v, reference in state.known.items() if v in versions},
                "labels": state.pool.texts,
                "watermark": state.watermark,
                "late": state.late,
                "swept": state.swept,
                "beside": beside,
            }
        )
        self._remove_old()

    def load(self, references: ReferenceSource) -> Checkpoint | None:
        """Return the last checkpoint, or None where there is none.

        Raises:
            CheckpointError: if it is damaged, of another format, made with other settings or versions, or
                of a log that is not this one.
        """
        try:
            data = _body((self.folder / _NAME).read_bytes())
            self._check(data, references)
            return Checkpoint(self._state(data, references), data["cursor"], data["beside"])
        except FileNotFoundError as err:
            if not (self.folder / _NAME).exists():
                return None
            raise CheckpointError(str(err)) from err
        except (OSError, ValueError, KeyError, TypeError, IndexError, pa.ArrowException) as err:
            raise CheckpointError(f"it cannot be read: {type(err).__name__}: {err}") from err

    def _check(self, data: _Data, references: ReferenceSource) -> None:
        if data["made_with"] != self._made_with:
            raise CheckpointError("it was made with other settings")
        for name, size in data["cursor"].items():
            path = self._log / name
            if not path.exists() or path.stat().st_size < size:
                raise CheckpointError(f"the log's segment {name} is not as it was")
        for version, known in data["known"].items():
            reference = references.reference(version)
            now = {} if reference is None else orjson.loads(orjson.dumps(encode(reference)))
            if reference is not None and not _holds(now, known):
                raise CheckpointError(f"version {version} is another one than it was")

    def _publish(self, data: _Data) -> None:
        body = orjson.dumps(data)
        head = orjson.dumps({"format": FORMAT, "digest": digest_bytes(body)})
        draft = self.folder / f"draft-{uuid.uuid4().hex}"
        try:
            draft.write_bytes(head + b"\n" + body)
            os.replace(draft, self.folder / _NAME)
        finally:
            draft.unlink(missing_ok=True)

    def _remove_old(self) -> None:
        kept, now = {_NAME, *self._files.digests}, time.time()
        for path in self.folder.iterdir():
            try:
                if path.name not in kept and now - path.stat().st_mtime > _OLD_S:
                    path.unlink()
            except FileNotFoundError:  # another process was first
                continue

    def _state(self, data: _Data, references: ReferenceSource) -> FoldState:
        self._files.digests = dict(data["files"])
        places = [Place(**one["place"]) for one in data["windows"]]
        lost = [Place(**place) for place in data["orphans"]]
        slots = [*range(len(places)), *[NOWHERE] * len(lost)]
        table, firsts = self._files.read([*places, *lost], slots)
        state = FoldState(
            rows=table,
            pool=restored_pool(data["labels"]),
            known={
                version: references.reference(version) or decode(Reference, one)
                for version, one in data["known"].items()
            },
            closed={(v, n): self._evidence(v, n, one) for v, n, one in data["closed"]},
            services=Services.of_lines(data.get("services", ()), self._length),
            watermark=data["watermark"],
            late=data["late"],
            swept=data["swept"],
        )
        for slot, one in enumerate(data["windows"]):
            version, number, first = one["version"], one["number"], firsts[slot]
            state.windows[version, number] = window = Window(
                version,
                number * self._length,
                (number + 1) * self._length,
                slot,
                reference=state.known.get(version) if one["known"] else None,
                waiting={first + at: [line.encode() for line in lines] for at, lines in one["waiting"]},
            )
            window.add(np.arange(first, first + places[slot].rows))
            window.saved = places[slot]
            if one["evidence"] and _is_whole(one["evidence"]):  # else it is reckoned again, from the rows
                window.cached = self._evidence(version, number, one["evidence"])
            state.slots.append(window)
        return state

    def _window_data(self, window: Window, table: Rows) -> _Data:
        waiting: list[tuple[int, list[str]]] = []
        if window.waiting:
            rows = enumerate(window.members(table).tolist())
            waiting = [(at, [line.decode() for line in window.waiting[row]]) for at, row in rows]
        return {
            "version": window.version,
            "number": window.start // self._length,
            "known": window.reference is not None,
            "place": window.saved,
            "evidence": None if window.cached is None else _evidence_data(window.cached),
            "waiting": waiting,
        }

    def _evidence(self, version: str, number: int, data: list[Any]) -> Evidence:
        start = number * self._length
        drift = tuple(Drift(**dict(zip(_OF_DRIFT, one, strict=False))) for one in data[-1])
        if len(data) > len(_FIGURES) + 1:
            raise CheckpointError("its evidence has figures that this version does not know")
        facts = dict(zip(_FIGURES, data[:-1], strict=False))  # an older one lacks the last: they are unknown
        ends = {name: Drift(**facts[name]) for name in (ANSWERS, LABELS) if facts.get(name) is not None}
        return Evidence(
            version=version,
            start=from_microseconds(start),
            end=from_microseconds(start + self._length),
            drift=drift,
            labelled_share=self._share,
            **(facts | ends),
        )


def _body(whole: bytes) -> _Data:
    head, _, body = whole.partition(b"\n")
    told = orjson.loads(head)
    if told["format"] != FORMAT:
        raise CheckpointError(f"it is of format {told['format']!r}, this version reads {FORMAT}")
    if digest_bytes(body) != told["digest"]:
        raise CheckpointError("it is damaged")
    data: _Data = orjson.loads(body)
    return data


def _evidence_data(evidence: Evidence) -> list[Any]:
    """Return the figures in the order of `_FIGURES`, which grows at its end, and of each column's drift."""
    drift = [[getattr(one, name) for name in _OF_DRIFT] for one in evidence.drift]
    return [*(getattr(evidence, name) for name in _FIGURES), drift]


def _holds(now: Any, known: Any) -> bool:
    """Return whether all that was known of a version is so still; it may tell more by now."""
    if isinstance(known, dict) and isinstance(now, dict):
        return all(key in now and _holds(now[key], value) for key, value in known.items())
    return bool(now == known) or known is None


def _is_whole(data: list[Any]) -> bool:
    """Return whether evidence has all figures, also those that an older version did not know."""
    return len(data) == len(_FIGURES) + 1


def _is_scattered(places: list[Place]) -> bool:
    """Whether files hold much that is no longer needed, or are many small ones."""
    files = {place.file for place in places}
    rows = sum(place.rows for place in places)
    too_many = len(files) > _MOST_FILES + 2 * rows // FILE_ROWS
    return too_many or sum(map(rows_in, files)) > 2 * rows + FILE_ROWS
