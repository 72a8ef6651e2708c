"""Appends to the log; what `append` returned from survives a kill of the process.

Durability: `append` returns after the operating system has taken every byte, so a killed process loses
nothing. A power loss or a crashed kernel may lose what came after the last fsync, which a background thread
makes at most `sync_ms` after each append. With ``sync="each"`` it makes one after the other, as long as
somebody waits in `synced`: all who wait share the next one, so that many cost hardly more than one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from raywf.core.store import Store
from raywf.outcomes.lines import Entry, PredictionBatch, log_folder, to_line
from raywf.outcomes.shipping import SEGMENT_S, SHIP_S, Shipping

_logger = logging.getLogger(__name__)

SEGMENT_BYTES = 64_000_000
SYNC_MS = 100.0


class LogWriter:
    """One process' writer of a workflow's log; thread-safe, one live segment, never rewritten.

    Each writer has segments of its own (``<start time>-<uuid>.jsonl``), so any number of processes
    write at once. A segment is closed when it has `segment_bytes`, or when a write to it failed.

    On an object store segments lie in a spool on this node first, and are shipped at most a second after each
    append: a killed process loses nothing, a lost node what was not shipped. With ``sync="each"`` those who
    wait in `synced` wait for the store. While it is away the spool grows.
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
        store = Store(root)
        self.folder = log_folder(root, workflow) / ("" if store.is_local else "spool")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._each, self._sync_s, self._limit = sync == "each", sync_ms / 1000, segment_bytes
        self._shipping = None if store.is_local else Shipping(store, self.folder, workflow)
        if self._shipping is not None:
            self._sync_s = max(self._sync_s, SHIP_S)
        self._lock = threading.Lock()
        self._fd, self._size, self._dirty, self._closed = -1, 0, False, False
        self._refused_since = math.inf  # when the oldest append came that the object store did not take
        self._begun = 0.0  # when the live segment was
        self._since = 0.0  # when the first append came that no sync has taken up yet
        self._waiting: list[asyncio.Future[None]] = []
        self._unsynced: OSError | None = None  # why some of what was written may never be on the disk
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
            if not self._dirty:
                self._since, self._dirty = time.monotonic(), True
        if not self._each and not self._wake.is_set():
            self._wake.set()

    @property
    def unsynced_s(self) -> float:
        """How long ago the oldest append came that no sync has taken up yet; 0 where there is none."""
        oldest = min(self._since if self._dirty else math.inf, self._refused_since)
        return max(0.0, time.monotonic() - oldest)

    def sync_soon(self) -> None:
        """Have what was appended synced though nobody waits for it."""
        self._wake.set()

    async def synced(self) -> None:
        """Return once all that was appended is on the disk; at once where `sync` is not "each".

        Raises:
            OSError: if the disk refuses.
        """
        if not self._each:
            return
        with self._lock:
            if self._closed or self._thread is None:  # nothing was appended
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
        self._wake.set()
        await future

    def close(self) -> None:
        """Sync and close the live segment; further appends are refused. Safe to call twice."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            waiting, self._waiting = self._waiting, []
            try:
                self._end_segment()
            finally:
                refused = None if self._shipping is None else self._shipping.end()
                _tell(waiting, self._unsynced or refused)
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
        old = self._shipping is not None and time.monotonic() > self._begun + SEGMENT_S
        if self._fd >= 0 and (self._size >= self._limit or old):
            self._end_segment()
        if self._fd < 0:
            self._start_segment()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            # A torn line must stay the last of its segment: the next append starts another.
            fd, self._fd, self._dirty = self._fd, -1, False
            self._unsynced = _sync_and_close(fd) or self._unsynced
            raise
        self._size += len(data)

    def _start_segment(self) -> None:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        if self._shipping is None:
            self._fd, self._size = os.open(self.folder / name, flags, 0o644), 0
        else:
            self._fd, self._size = self._start_shipped(self._shipping, name, flags), 0
        self._begun = time.monotonic()
        _sync_folder(self.folder)
        if self._thread is None:
            self._thread = threading.Thread(target=self._sync_forever, name="raywf-log-sync", daemon=True)
            self._thread.start()

    def _start_shipped(self, shipping: Shipping, name: str, flags: int) -> int:
        """Create a segment of the spool; it has its name once it is locked, lest another writer adopts it."""
        draft = self.folder / f"{name}.new"
        fd = os.open(draft, flags, 0o644)
        try:
            shipping.begin(name, fd)
            draft.rename(self.folder / name)
        except OSError:
            os.close(fd)
            draft.unlink(missing_ok=True)
            raise
        return fd

    def _end_segment(self) -> None:
        fd, self._fd, self._dirty = self._fd, -1, False
        failed = _sync_and_close(fd) if fd >= 0 else None
        if failed is not None:
            self._unsynced = failed  # those who wait for lines of this segment hear of it too
            raise failed

    def _sync_forever(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            if not self._each:
                self._stop.wait(self._sync_s)
            self._wake.clear()
            with self._lock:
                since = self._since
                fd, failed = self._duplicate()
                waiting, self._waiting = self._waiting, []
                error, self._unsynced = self._unsynced, None
            failed = _sync_and_close(fd) if fd >= 0 else failed
            if failed is not None:
                _logger.warning("the outcome log cannot be synced: %s", failed)
                with self._lock:  # for those who came while it was tried, and whose lines were in it
                    self._unsynced = failed
            _tell(waiting, failed or self._shipped(since) or error)

    def _shipped(self, since: float) -> OSError | None:
        """Ship what is synced, which was appended from `since` on; return the store's refusal.

        What it refuses is not lost: it is tried again, without anybody asking.
        """
        if self._shipping is None or self._shipping.ship():
            self._refused_since = math.inf
            return None
        self._refused_since = min(since, self._refused_since)
        self._stop.wait(SHIP_S)
        self._wake.set()
        return OSError("the object store does not take the log, which waits on this node")

    def _duplicate(self) -> tuple[int, OSError | None]:
        """Return a duplicate of what has to be synced, or -1; its fsync needs no lock."""
        if not self._dirty or self._fd < 0:
            return -1, None
        try:
            fd = os.dup(self._fd)
        except OSError as err:  # too many open files: it stays to be done, and those who wait hear of it
            return -1, err
        self._dirty = False
        return fd, None


def _tell(waiting: list[asyncio.Future[None]], error: OSError | None) -> None:
    """Let those who wait go on, each in its own event loop, or raise there."""
    for loop in {future.get_loop() for future in waiting}:
        ours = [future for future in waiting if future.get_loop() is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, ours, error)


def _settle(futures: list[asyncio.Future[None]], error: OSError | None) -> None:
    for future in futures:
        if future.done():  # its caller went away
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _sync_and_close(fd: int) -> OSError | None:
    """Return what the disk refuses with, if it does."""
    try:
        os.fsync(fd)
    except OSError as err:
        return err
    finally:
        os.close(fd)
    return None


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
