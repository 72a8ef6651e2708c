"""Finds what the log says of one prediction without reading all of it.

Beside each segment lies its index, ``<segment>.index``: the hash of each id on its lines and where the line
begins, sorted by hash, 16 bytes an entry. Segments only grow, so that an index is right for the bytes that it
covers; what came since is read at the next call, kept in memory, and written into the index once it is much
or the segment has come to rest. Indexes are made again where they are missing, and any process may make them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from raywf.core.errors import RaywfError
from raywf.core.records import Outcome, Prediction
from raywf.core.rollout import ShadowAnswer
from raywf.outcomes.join import join
from raywf.outcomes.lines import Entry, entries_of, line_digest, log_folder
from raywf.outcomes.shipping import open_mirror

READ_BYTES = 2_000_000  # of a segment at a time
KEPT_BYTES = 4_000_000  # of a segment, beyond its index, whose entries are kept in memory
REST_S = 60.0  # since the last write to a segment
_MAGIC = int.from_bytes(b"raywfix1", "big")
_ONE = b'{"id":"'

_logger = logging.getLogger(__name__)
Table = NDArray[np.uint64]  # (2, n): hashes in order, and where each one's line begins


class IndexBehindError(RaywfError):
    """The log has grown faster than it was read; ask again, each call goes on where the last one stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the log says of an id: as `join` pairs them, and shadows' answers by version."""

    prediction: Prediction
    outcome: Outcome | None
    shadows: tuple[ShadowAnswer, ...]


@dataclass(slots=True)
class _Segment:
    """One segment's entries: those of its index for `covered` bytes, and `recent` ones until `read`."""

    path: Path
    indexed: _Index | Table
    covered: int
    read: int
    recent: list[Table] = field(default_factory=list)

    def tables(self) -> list[_Index | Table]:
        return [self.indexed, *self.recent]

    @property
    def is_outdated(self) -> bool:
        """Whether another file has taken the index's place, which may cover more or less."""
        return isinstance(self.indexed, _Index) and self.indexed.stamp != _stamp(self.indexed.path)


@dataclass(frozen=True, slots=True)
class _Index:
    """An index file, read as far as a lookup needs; `stamp` tells it from one that took its place.

    It is not mapped into memory: on a mounted folder another machine may replace it, and a process that
    touches a mapped page of a file that is gone is ended by the system.
    """

    path: Path
    stamp: tuple[int, int]

    def places(self, key: int) -> list[int]:
        """Return where the lines begin whose ids have a hash.

        Raises:
            OSError: if the file cannot be read.
        """
        with open(self.path, "rb") as file:
            start, count = _begin_of(file)
            keys = _Numbers(file.fileno(), start + 8, count - 1)  # the first is the mark and what is covered
            first = last = bisect_left(keys, key)
            while last < len(keys) and keys[last] == key:
                last += 1
            lines = _Numbers(file.fileno(), start + 8 * (count + 1), count - 1)
            return [lines[at] for at in range(first, last)]

    def whole(self) -> Table:
        """Return all entries."""
        stored: Table = np.load(self.path, allow_pickle=False)
        return stored[:, 1:]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Whole numbers of eight bytes in a file."""

    descriptor: int
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> int:
        return int.from_bytes(os.pread(self.descriptor, 8, self.start + 8 * at), "little")


class LogLookup:
    """Looks ids of a workflow's log up; thread-safe, many of them may be at work on one log.

    `budget_s` bounds how long one call reads what is new. In memory are at most the entries of `KEPT_BYTES`
    of each segment that is being written. Of a log on an object store it looks into a mirror.
    """

    def __init__(self, root: str, workflow: str, *, budget_s: float = 5.0) -> None:
        self._mirror = open_mirror(root, workflow)
        self.folder = self._mirror.folder if self._mirror else log_folder(root, workflow)
        self._budget_s = budget_s
        self._segments: dict[str, _Segment] = {}
        self._reading = threading.Lock()

    def find(self, prediction_id: str) -> Found | None:
        """Return what the log says of an id; None where it holds no prediction of it.

        Raises:
            IndexBehindError: if the log could not be read to its end within the budget.
            OSError: if a segment cannot be read.
        """
        entries = list(self._entries(prediction_id, self._refreshed()))
        pairs = join(entries)
        if not pairs:
            return None
        ((prediction, outcome),) = pairs
        return Found(prediction=prediction, outcome=outcome, shadows=_shadows(entries))

    def _entries(self, wanted: str, tables: list[tuple[Path, list[_Index | Table]]]) -> Iterator[Entry]:
        """Yield the log's entries of an id, in the log's order."""
        key = _hash(wanted.encode(errors="surrogatepass"))
        for path, parts in tables:
            places = sorted({at for part in parts for at in _places(part, key)})
            if not places:
                continue
            with open(path, "rb") as file:
                for at in places:
                    file.seek(at)
                    yield from (entry for entry in _read(file.readline()) if entry.id == wanted)

    def _refreshed(self) -> list[tuple[Path, list[_Index | Table]]]:
        """Read what came since the last call, and return each segment's tables in the log's order."""
        deadline = time.monotonic() + self._budget_s
        if not self._reading.acquire(timeout=self._budget_s):
            raise IndexBehindError("the log is being read; ask again")
        try:
            if self._mirror is not None:
                self._mirror.refresh(at_once=True)
            present = {path.name: path for path in sorted(self.folder.glob("*.jsonl"))}
            for name in self._segments.keys() - present.keys():
                del self._segments[name]
            for count, (name, path) in enumerate(present.items()):
                segment = self._segments.get(name)
                if segment is None or segment.is_outdated:
                    segment = self._segments[name] = _open(path)
                if not _catch_up(segment, deadline):
                    reason = f"the log is being read for the first time: {count} of {len(present)} segments"
                    raise IndexBehindError(f"{reason}; ask again")
            return [(path, self._segments[name].tables()) for name, path in present.items()]
        finally:
            self._reading.release()


def _open(path: Path) -> _Segment:
    """Return a segment with its index, which is empty where there is none that can be read."""
    index = _index_path(path)
    try:
        stamp = _stamp(index)
        with open(index, "rb") as file:
            start, count = _begin_of(file)
            mark, covered = (_Numbers(file.fileno(), at, 1)[0] for at in (start, start + 8 * count))
            is_whole = os.fstat(file.fileno()).st_size == start + 16 * count
        if mark == _MAGIC and is_whole and stamp is not None:
            return _Segment(path, _Index(index, stamp), covered, covered)
    except (OSError, ValueError, EOFError):
        pass  # missing, or cut off by a full disk: it is made again
    return _Segment(path, np.empty((2, 0), np.uint64), 0, 0)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _begin_of(file: BinaryIO) -> tuple[int, int]:
    """Return where an index's numbers begin, and how many there are in each of its two rows.

    Raises:
        ValueError: if it is none.
    """
    np.lib.format.read_magic(file)
    shape, is_by_column, kind = np.lib.format.read_array_header_1_0(file)
    if len(shape) != 2 or shape[0] != 2 or shape[1] < 1 or is_by_column or kind != np.dtype("<u8"):
        raise ValueError("this is no index of a log")
    return file.tell(), int(shape[1])


def _catch_up(segment: _Segment, deadline: float) -> bool:
    """Read a segment from where it was read to; return whether its end was reached in time."""
    status = segment.path.stat()
    is_at_rest = time.time() - status.st_mtime > REST_S
    while segment.read < status.st_size:
        if time.monotonic() > deadline:
            return False
        data = _lines(segment.path, segment.read)
        if not data:
            break  # a line without its end
        segment.recent.append(_table(data, segment.read))
        segment.read += len(data)
        if segment.read - segment.covered >= KEPT_BYTES:
            _keep(segment)
    if segment.recent and is_at_rest:
        _keep(segment)
    elif len(segment.recent) > 1:
        segment.recent = [_merged(segment.recent)]
    return True


def _keep(segment: _Segment) -> None:
    """Write all entries of a segment into its index; where that fails they stay in memory."""
    whole = _merged([part.whole() if isinstance(part, _Index) else part for part in segment.tables()])
    first = np.array([[_MAGIC], [segment.read]], np.uint64)
    stored = np.ascontiguousarray(np.concatenate([first, whole], axis=1))
    path = _index_path(segment.path)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "xb") as file:
            np.save(file, stored, allow_pickle=False)
        os.replace(draft, path)
    except OSError as err:
        draft.unlink(missing_ok=True)
        _logger.warning("the log's index cannot be written, it stays in memory: %s", err)
        segment.indexed, segment.covered, segment.recent = whole, segment.read, []
        return
    opened = _open(segment.path)  # another process may have been further
    segment.indexed, segment.covered, segment.recent = opened.indexed, opened.covered, []
    segment.read = opened.read


def _lines(path: Path, start: int) -> bytes:
    """Return some whole lines from `start`, none where the first one has no end yet."""
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(READ_BYTES)
        if b"\n" not in data:
            data += file.readline()
    return data[: data.rfind(b"\n") + 1]


def _table(data: bytes, start: int) -> Table:
    """Return the entries of whole lines, the first of which begins at `start` in its segment."""
    hashes: list[int] = []
    places: list[int] = []
    at = start
    for line in data.split(b"\n")[:-1]:
        found = _hashes(line)
        hashes += found
        places += [at] * len(found)
        at += len(line) + 1
    return _merged([np.array([hashes, places], np.uint64)])


def _hashes(line: bytes) -> list[int]:
    """Return the hashes of a line's ids; most lines tell theirs without being parsed."""
    if line.startswith(_ONE):
        one = line[len(_ONE) : line.find(b'"', len(_ONE))]
        if b"\\" not in one:
            return [_hash(one)]
    try:
        data = orjson.loads(line)
        ids = data["ids"] if "ids" in data else [data["id"]]
        return [_hash(one.encode()) for one in ids]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # a corrupt line, which readers skip too


def _hash(identity: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "big")


def _merged(tables: list[Table]) -> Table:
    whole = np.concatenate(tables, axis=1)
    return whole[:, np.argsort(whole[0], kind="stable")]


def _places(table: _Index | Table, key: int) -> list[int]:
    if isinstance(table, _Index):
        return table.places(key)
    wanted = np.uint64(key)
    first = int(np.searchsorted(table[0], wanted, side="left"))
    last = int(np.searchsorted(table[0], wanted, side="right"))
    return [int(at) for at in table[1, first:last]]


def _read(line: bytes) -> list[Entry]:
    try:
        return entries_of(line)
    except (ValueError, KeyError, TypeError):
        return []


def _shadows(entries: list[Entry]) -> tuple[ShadowAnswer, ...]:
    """Return each version's answer beside the live one: of several the earliest, as duels take it."""
    found: dict[str, ShadowAnswer] = {}
    answers = [entry for entry in entries if isinstance(entry, ShadowAnswer)]
    for answer in sorted(answers, key=lambda one: (one.time, line_digest(one))):
        found.setdefault(answer.version, answer)
    return tuple(found[version] for version in sorted(found))


def _index_path(segment: Path) -> Path:
    return segment.with_suffix(".index")
