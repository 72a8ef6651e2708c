"""What a job prints, kept with the settings that it was given: Ray keeps it on the driver's node alone.

A driver's output is a file of its node, which goes with it. So each driver reads that file of its own every
few seconds and writes what is new to ``jobs/<id>/log-<number>.txt`` of the store, in parts that are written
again until they are full. Killed, it loses what it printed in those seconds; at any other end nothing.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import stat
import threading
from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path

from raywf.core.redact import redact, secrets_of
from raywf.core.settings import Workflow
from raywf.core.store import Store

_log = logging.getLogger(__name__)
EVERY_S = 3.0
_PART_BYTES, _MOST_PARTS = 256 * 1024, 64  # the first and the last ones of more
_LONGEST_LINE = 64 * 1024  # bytes that are waited for; a secret across two reads would be seen in neither
_BLOCK = 1024 * 1024
_OUTPUT = Path("/proc/self/fd/1")  # of Linux; elsewhere Ray's own file is all that there is
_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what Ray gives a driver, see ray/_private/runtime_env/constants.py


class OutputKeeper:
    """Copies a growing file into parts below a folder of the store; `ship` is for one thread at a time."""

    def __init__(
        self, file: BufferedReader, store: Store, folder: str, *, secrets: Iterable[str] = ()
    ) -> None:
        self._file, self._store, self._folder = file, store, folder
        self._secrets = tuple(secrets)
        self._line = b""  # the beginning of one whose end is not printed yet
        self._part, self._number, self._written = b"", 0, True
        self._is_failing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="raywf-job-log", daemon=True)

    def start(self) -> None:
        """Ship now, then every few seconds until `end`."""
        self._try_to_ship()
        self._thread.start()

    def end(self) -> None:
        """Ship the rest; nothing is shipped after that."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try_to_ship(last=True)

    def ship(self, *, last: bool = False) -> None:
        """Write what was printed since the last call, up to the end of a line unless it is the last one.

        Raises:
            OSError: if the store refuses; the next call writes what this one could not.
        """
        while True:
            block = self._file.read(_BLOCK)
            self._take(self._line + block, last=last and not block)
            self._write_full()
            if not block:
                break
        if not self._written:
            self._store.write(self._path(self._number), self._part)
            self._written = True

    def _take(self, text: bytes, *, last: bool) -> None:
        whole = len(text) if last or len(text) - text.rfind(b"\n") > _LONGEST_LINE else text.rfind(b"\n") + 1
        lines, self._line = text[:whole], text[whole:]
        if lines:
            self._part += redact(lines.decode(errors="replace"), self._secrets).encode()
            self._written = False

    def _write_full(self) -> None:
        """Write the parts that are full; of many the first one and the newest stay."""
        while len(self._part) > _PART_BYTES:
            self._store.write(self._path(self._number), self._part[:_PART_BYTES])
            self._part, self._number = self._part[_PART_BYTES:], self._number + 1
            if self._number >= _MOST_PARTS:
                self._store.drop(self._path(self._number - _MOST_PARTS + 1))

    def _path(self, number: int) -> str:
        return f"{self._folder}/log-{number:07d}.txt"

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._try_to_ship()

    def _try_to_ship(self, *, last: bool = False) -> None:
        try:
            self.ship(last=last)
            self._is_failing = False
        except Exception as err:  # noqa: BLE001 - whatever is wrong with the store, the job itself goes on
            if not self._is_failing:  # told once: it is tried again with what is printed then
                _log.warning("the job's output cannot be kept: %s: %s", type(err).__name__, redact(str(err)))
            self._is_failing = True


def keep_output(workflow: Workflow, environ: Mapping[str, str] = os.environ) -> OutputKeeper | None:
    """Keep what this process prints until its end; None where it is no job of Ray's that prints to a file.

    Ray stops it by SIGINT, which is heeded from now on: what a shell started in the background ignores it,
    and so does all that comes of it, as a cluster does that a script has started. Call it once.
    """
    job_id = job_id_of(environ)
    if job_id and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not job_id or not _prints_to_file():
        return None
    store, folder = Store(workflow.stores.root), folder_of(job_id)
    keeper = OutputKeeper(_OUTPUT.open("rb"), store, folder, secrets=secrets_of(environ))
    store.filesystem()  # which ends with Python: in the opposite order, so that it is there before us
    keeper.start()
    atexit.register(keeper.end)
    return keeper


def read_kept(workflow: Workflow, job_id: str) -> str | None:
    """Return what was kept of a job's output, or None where nothing was; what is left out is told.

    Raises:
        OSError: if the store cannot be read.
    """
    store, folder = Store(workflow.stores.root), folder_of(job_id)
    names = [name for name in store.list(folder) if name.startswith("log-")] if "/" not in job_id else []
    texts, expected = [], 0
    for name in names:
        number = int(name.removeprefix("log-").removesuffix(".txt"))
        if number > expected:
            texts.append(f"\n... {(number - expected) * _PART_BYTES:,} bytes are not kept ...\n".encode())
        texts.append(store.read(f"{folder}/{name}"))
        expected = number + 1
    return b"".join(texts).decode(errors="replace") if names else None


def folder_of(job_id: str) -> str:
    """Return the folder of the store that has what is known of a job."""
    return f"jobs/{job_id}"


def job_id_of(environ: Mapping[str, str]) -> str:
    """Return the id under which this process was submitted, empty if it was not.

    >>> job_id_of({"RAY_JOB_CONFIG_JSON_ENV_VAR": '{"metadata": {"job_submission_id": "churn-1"}}'})
    'churn-1'
    """
    try:
        config = json.loads(environ.get(_CONFIG, "{}"))
    except ValueError:
        return ""
    return str((config.get("metadata") or {}).get("job_submission_id", ""))


def _prints_to_file() -> bool:
    try:
        return stat.S_ISREG(os.fstat(1).st_mode) and _OUTPUT.exists()
    except OSError:
        return False
