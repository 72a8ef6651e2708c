"""Appends to the log; what `append` returned from survives a kill of the process.

Durability: `append` returns after the operating system has taken every byte, so a killed process loses
nothing. A power loss or a crashed kernel may lose what came after the last fsync, which a background thread
makes at most `sync_ms` after each append; ``sync="each"`` makes it before `append` returns.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from raywf.outcomes.lines import Entry, PredictionBatch, log_folder, to_line

SEGMENT_BYTES = 64_000_000
SYNC_MS = 100.0


class LogWriter:
    """One process' writer of a workflow's log; thread-safe, one live segment, never rewritten.

    Each writer has segments of its own (``<start time>-<uuid>.jsonl``), so any number of processes
    write at once. A segment is closed when it has `segment_bytes`, or when a write to it failed.

    Raises:
        SettingsError: if the root is an object store.

    """

    def __init__(
        self,
        root: str,
        workflow: str,
        *,
        sync: Literal["interval", "each"] = "interval",
        sync_ms: float = SYNC_MS,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.folder = log_folder(root, workflow)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._each, self._sync_s, self._limit = sync == "each", sync_ms / 1000, segment_bytes
        self._lock = threading.Lock()
        self._fd, self._size, self._dirty, self._closed = -1, 0, False, False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def append(self, records: Sequence[Entry | PredictionBatch]) -> None:
        """Write all records, in order, and return when the operating system has them.

        Raises:
            OSError: if the disk refuses; lines of this batch may be in the log all the same.
            ValueError: if the writer is closed.
            TypeError: if a feature's value is not a JSON value; nothing is written.

        """
        if not records:
            return
        data = b"".join(map(to_line, records))
        with self._lock:
            if self._closed:
                raise ValueError("the log's writer is closed")
            self._write(data)
            if self._each:
                os.fsync(self._fd)
                return
            self._dirty = True
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Sync and close the live segment; further appends are refused. Safe to call twice."""
        with self._lock:
            self._closed = True
            self._end_segment()
            thread, self._thread = self._thread, None
        self._stop.set()
        self._wake.set()
        if thread is not None:
            thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        if self._fd >= 0 and self._size >= self._limit:
            self._end_segment()
        if self._fd < 0:
            self._start_segment()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            # A torn line must stay the last of its segment: the next append starts another.
            fd, self._fd = self._fd, -1
            os.close(fd)
            raise
        self._size += len(data)

    def _start_segment(self) -> None:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd, self._size = os.open(self.folder / name, flags, 0o644), 0
        _sync_folder(self.folder)
        if self._thread is None and not self._each:
            self._thread = threading.Thread(target=self._sync_forever, name="raywf-log-sync", daemon=True)
            self._thread.start()

    def _end_segment(self) -> None:
        fd, self._fd, self._dirty = self._fd, -1, False
        if fd >= 0:
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _sync_forever(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(self._sync_s)
            self._wake.clear()
            with self._lock:
                # A duplicate lets the fsync run outside the lock, whatever becomes of the segment.
                fd = os.dup(self._fd) if self._dirty and self._fd >= 0 else -1
                self._dirty = False
            if fd >= 0:
                _sync_and_close(fd)


def _sync_and_close(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError:
        return  # the disk is failing: the next write or close says so to a caller
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
