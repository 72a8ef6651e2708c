"""The log on an object store, which cannot be appended to: a node's disk first, then shipped there.

A writer's segments lie in a spool on its node. What came since goes to ``<prefix>/<segment>.parts/<offset>``,
an object a time; a segment that has ended becomes ``<prefix>/<segment>`` as a whole, its parts go, and it
leaves the spool. A part that is sent again, since nobody knows whether it arrived, begins where it began
before: the store holds each byte at one offset, whatever was repeated. A reader keeps a mirror, files as the
writers had them. What a killed writer left in its spool is shipped by the next one on that node.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raywf.core.locks import claim
from raywf.core.store import Store
from raywf.outcomes.lines import log_folder

SHIP_S = 1.0  # between two parts of a segment
SEGMENT_S = 600.0  # a segment is ended after so long too, so that its parts stay few
_PART_BYTES = 8_000_000
_REFRESH_S = 0.5
_PARTS = ".parts"
_log = logging.getLogger(__name__)


def open_mirror(root: str, workflow: str) -> Mirror | None:
    """Return this node's mirror of a log on an object store; None where the log is a folder itself."""
    store = Store(root)
    return None if store.is_local else Mirror(store, log_folder(root, workflow) / "mirror", workflow)


def prefix(workflow: str) -> str:
    """Return where a workflow's log lies below the root."""
    return f"log/{workflow}"


class Shipper:
    """Brings a spool's segments to the store; one a writer, whose segments it knows by their names.

    Not safe for threads.
    """

    def __init__(self, store: Store, spool: Path, workflow: str) -> None:
        self._store, self._spool, self._prefix = store, spool, prefix(workflow)
        self._shipped: dict[str, int] = {}

    def ship(self, name: str) -> None:
        """Ship what a segment holds beyond what was shipped, whole lines only.

        Raises:
            OSError: if the store does not take it; it stays in the spool, to be shipped again.
        """
        while data := self._next(name):
            at = self._shipped.get(name, 0)
            self._store.write(f"{self._prefix}/{name}{_PARTS}/{at:016}", data)
            self._shipped[name] = at + len(data)

    def finish(self, name: str) -> None:
        """Ship a segment that has ended as one object, and take it out of the spool.

        Raises:
            OSError: if the store does not take it; it stays in the spool.
        """
        self._shipped.pop(name, None)
        try:
            data = (self._spool / name).read_bytes()
        except FileNotFoundError:  # another writer of this node has adopted it
            return
        self._store.write(f"{self._prefix}/{name}", data[: data.rfind(b"\n") + 1])
        self._store.remove(f"{self._prefix}/{name}{_PARTS}")
        (self._spool / name).unlink(missing_ok=True)

    def adopt(self) -> None:
        """Finish the segments of writers that are no more.

        Raises:
            OSError: if the store does not take one; it stays in the spool.
        """
        for path in sorted(self._spool.glob("*.jsonl")):
            with open(path, "rb") as file:
                if claim(file.fileno()):
                    self.finish(path.name)

    def _next(self, name: str) -> bytes:
        with open(self._spool / name, "rb") as file:
            file.seek(self._shipped.get(name, 0))
            data = file.read(_PART_BYTES)
            if len(data) == _PART_BYTES and b"\n" not in data:
                data += file.readline()
        return data[: data.rfind(b"\n") + 1]


class Shipping:
    """A writer's segments on their way: which is being written, which have ended; thread-safe.

    `begin` waits for no one: an append must not wait for the store.
    """

    def __init__(self, store: Store, spool: Path, workflow: str) -> None:
        self._shipper = Shipper(store, spool, workflow)
        self._lock = threading.Lock()
        self._live: str | None = None
        self._ended: list[str] = []
        self._adopted = self._warned = False

    def begin(self, name: str, descriptor: int) -> None:
        """Take note of a new segment, which nobody else can see yet; the one before it has ended.

        Raises:
            OSError: if it cannot be locked.
        """
        if not claim(descriptor):
            raise OSError(f"another has locked the log's segment {name}")
        if self._live is not None:
            self._ended.append(self._live)
        self._live, self._adopted = name, False

    def end(self) -> OSError | None:
        """Take note that the live segment has ended, and ship it; return the store's refusal."""
        if self._live is not None:
            self._ended.append(self._live)
        self._live = None
        return None if self.ship() else OSError("the object store does not take the log's end")

    def ship(self) -> bool:
        """Bring what there is to the store; return whether it took everything."""
        with self._lock:
            try:
                while self._ended:
                    self._shipper.finish(self._ended[0])
                    self._ended.pop(0)
                live = self._live  # another thread may end it meanwhile; it stays in the spool until then
                if live is not None:
                    self._shipper.ship(live)
                if not self._adopted:
                    self._shipper.adopt()
                    self._adopted = True
            except OSError as err:
                if not self._warned:
                    _log.warning("the object store does not take the log, which waits on this node: %s", err)
                self._warned = True
                return False
            self._warned = False
            return True


class Mirror:
    """A folder with the log's segments as the store has them; several processes may share it."""

    def __init__(self, store: Store, folder: Path, workflow: str) -> None:
        self._store, self.folder, self._prefix = store, folder, prefix(workflow)
        self._looked = -_REFRESH_S
        folder.mkdir(parents=True, exist_ok=True)

    def refresh(self, *, at_once: bool = False) -> None:
        """Bring what is new; at most twice a second, unless at once.

        Raises:
            OSError: if the store does not answer.
        """
        if not at_once and time.monotonic() < self._looked + _REFRESH_S:
            return
        with self._alone():
            wholes, parts = self._listed()
            for name, size in wholes.items():
                self._append(name, f"{self._prefix}/{name}", 0, size)
            for name, offsets in parts.items():
                for at, size in sorted(offsets.items()) if name not in wholes else ():
                    self._append(name, f"{self._prefix}/{name}{_PARTS}/{at:016}", at, size)
        self._looked = time.monotonic()

    def _listed(self) -> tuple[dict[str, int], dict[str, dict[int, int]]]:
        """Return the sizes of whole segments, and of parts by their offsets."""
        wholes: dict[str, int] = {}
        parts: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for path, size in self._store.walk(self._prefix):
            folder, _, name = path.rpartition("/")
            if folder.endswith(_PARTS):
                parts[folder.rpartition("/")[2].removesuffix(_PARTS)][int(name)] = size
            elif name.endswith(".jsonl"):
                wholes[name] = size
        return wholes, parts

    def _append(self, name: str, path: str, at: int, size: int) -> None:
        """Write what an object, which begins at an offset of its segment, has beyond the mirror's file."""
        file = self.folder / name
        held = file.stat().st_size if file.exists() else 0
        if held < at or held >= at + size:  # the part before it is not listed yet, or nothing is new
            return
        try:
            data = self._store.read(path)
        except FileNotFoundError:  # its segment has just become whole
            return
        with open(file, "ab") as stream:
            stream.write(data[held - at :])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
