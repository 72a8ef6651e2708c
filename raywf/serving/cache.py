"""Models from the registry by way of a folder on this machine, so that a replica can start without it.

Below ``<root>/cache/<workflow>/`` each bundle has a folder named for its version and digest;
``last-good.json`` names the newest that passed its checks.
"""

from __future__ import annotations

import json
import math
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import psutil
from numpy.typing import NDArray

from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import BundleError
from raywf.core.locks import claim, release
from raywf.core.records import Bundle, ModelVersion
from raywf.core.source import ModelSource
from raywf.core.store import Store
from raywf.models.bundle import Predictor, load_bundle, read_record
from raywf.models.explanation import Explainer
from raywf.models.unlike import Unlike
from raywf.serving.exchange import RawHeaders
from raywf.serving.gather import Gathered, Pace, measure_pace
from raywf.serving.schema import RowSchema

KEPT_BUNDLES = 8
DRAFT_AGE_S = 3600.0
TURN_S, _POLL_S = 20.0, 0.01
_MB = 1e6


class _TooLargeError(BundleError):
    """A bundle takes too much memory, which fetching it again does not change."""


@dataclass(frozen=True)
class LoadedModel:
    """A registered model in memory that passed its checks; a request uses one from start to end."""

    version: ModelVersion
    predictor: Predictor
    schema: RowSchema
    loaded: datetime
    pace: Pace

    @cached_property
    def _gathered(self) -> Gathered | None:
        return Gathered(self.predictor.predict_rows) if self.pace.gathers else None

    def score(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Return the scores ``(n_rows, k)`` of rows by column name; together with others' where that pays."""
        return self.predictor.predict_rows(rows) if self._gathered is None else self._gathered(rows)

    @cached_property
    def unlike(self) -> Unlike:
        """What tells the values that its training had not."""
        return Unlike(self.predictor.bundle.profile)

    @cached_property
    def headers(self) -> RawHeaders:
        """The header of every answer."""
        return ((b"x-raywf-model-version", self.version.version.encode()),)

    @cached_property
    def explainer(self) -> Explainer:
        """What explains its answers; made when first asked for."""
        return Explainer(self.predictor)


class BundleCache:
    """Fetches, checks and keeps bundles for the replicas of this machine; safe among processes.

    With `trust` bundles with members of the user's own are loaded too. One whose files, or whose objects in
    memory, take more than `max_mb` is not served. With `in_turn` the replicas of a machine load one after
    another: the first fetches for all, and requests find the others while one has its processor for the load.
    """

    def __init__(
        self,
        root: str,
        workflow: str,
        source: ModelSource,
        *,
        trust: bool = False,
        max_mb: float = math.inf,
        in_turn: bool = False,
    ) -> None:
        self.folder = Store(root).node_folder / "cache" / workflow
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store, self._source = Store(str(self.folder)), source
        self._trust, self._max_mb, self._in_turn = trust, max_mb, in_turn

    def load(self, version: ModelVersion) -> LoadedModel:
        """Return the version in memory after its digest and reference answers are checked.

        A cached copy that fails its check is fetched again once.

        Raises:
            BundleError: if the files are not those of the registered digest, answer otherwise, or take too
                much memory.
            RegistryError: if the files cannot be fetched.

        """
        folder = self._bundle_folder(version)
        with self._turn() if self._in_turn else nullcontext():
            if folder.exists():
                try:
                    return self._check(version, folder)
                except _TooLargeError:
                    raise
                except BundleError:
                    shutil.rmtree(folder, ignore_errors=True)
            return self._fetch(version, folder)

    def record(self, version: ModelVersion) -> Bundle:
        """Return what a version's bundle says of itself, its files checked; load no model.

        Raises:
            BundleError: if the files are not those of the registered digest.
            RegistryError: if the files cannot be fetched.
        """
        folder = self._bundle_folder(version)
        if folder.exists():
            return read_record(folder, digest=version.digest)
        draft = self._draft()
        try:
            return read_record(self._source.fetch(version, draft), digest=version.digest)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def remember(self, model: LoadedModel) -> None:
        """Name the model as the last good one, and remove the oldest bundles beyond eight."""
        self._store.write("last-good.json", orjson.dumps(encode(model.version)))
        self._prune(self._bundle_folder(model.version))

    def last_good(self) -> ModelVersion | None:
        """Return the version remembered last, or None."""
        try:
            return decode(ModelVersion, json.loads(self._store.read("last-good.json")))
        except (OSError, ValueError, DecodeError):
            return None

    def _bundle_folder(self, version: ModelVersion) -> Path:
        return self.folder / f"{version.version}-{version.digest.removeprefix('sha256:')[:16]}"

    def _fetch(self, version: ModelVersion, folder: Path) -> LoadedModel:
        """Fetch, check, and only then put the bundle in its place, where other replicas find it."""
        draft = self._draft()
        try:
            fetched = self._source.fetch(version, draft)
            model = self._check(version, fetched)
            fetched.rename(folder)
        except OSError:
            if not folder.exists():  # else another replica was first
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        model.predictor.bundle = replace(model.predictor.bundle, uri=str(folder))
        return model

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other replica of this machine loads, or for as long as one may be waited for."""
        lock = self._lock()
        try:
            yield
        finally:
            if lock is not None:
                release(lock.fileno())
                lock.close()

    def _lock(self) -> IO[str] | None:
        """Return the turn's lock; None where the disk takes no file or knows no locks: all load at once."""
        try:
            lock = open(self.folder / f".loading-{socket.gethostname()}", "w")  # noqa: SIM115 the turn closes it
        except OSError:
            return None
        due = time.monotonic() + TURN_S
        try:
            while not claim(lock.fileno()) and time.monotonic() < due:
                time.sleep(_POLL_S)
        except OSError:
            lock.close()
            return None
        return lock

    def _draft(self) -> Path:
        draft = self.folder / f"draft-{uuid.uuid4().hex}"
        draft.mkdir()
        return draft

    def _check(self, version: ModelVersion, folder: Path) -> LoadedModel:
        size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MB
        self._require_room(version, size_mb, "its files have")  # before anything of it is loaded
        before = rss_mb()
        model = _load(version, folder, trust=self._trust)
        self._require_room(version, rss_mb() - before, "it takes")
        return model

    def _require_room(self, version: ModelVersion, size_mb: float, what: str) -> None:
        if size_mb > self._max_mb:
            limit = f"more than the {self._max_mb:g} MB of serving.max_model_mb"
            raise _TooLargeError(f"version {version.version} is too large: {what} {size_mb:.0f} MB, {limit}")

    def _prune(self, keep: Path) -> None:
        folders = [path for path in self.folder.iterdir() if path.is_dir() and path != keep]
        drafts = {p for p in folders if p.name.startswith("draft-")}
        ages = {path: _modified(path) for path in folders}
        bundles = sorted((p for p in folders if p not in drafts), key=ages.__getitem__, reverse=True)
        stale = [p for p in drafts if time.time() - ages[p] > DRAFT_AGE_S]
        for path in (*bundles[KEPT_BUNDLES - 1 :], *stale):
            shutil.rmtree(path, ignore_errors=True)


def rss_mb() -> float:
    """Return the memory that this process has, in MB."""
    return float(psutil.Process().memory_info().rss) / _MB


def _load(version: ModelVersion, folder: Path, *, trust: bool) -> LoadedModel:
    try:
        predictor = load_bundle(folder, digest=version.digest, trust=trust)
        predictor.check_reference()
        pace = measure_pace(predictor.predict_rows, predictor.reference_rows())
    except BundleError:
        raise
    except Exception as err:  # each model library raises errors of its own for a file that it cannot read
        raise BundleError(f"bundle {folder} cannot be loaded: {err}") from err
    schema = RowSchema(predictor.bundle.columns)
    loaded = datetime.now(UTC)
    return LoadedModel(version=version, predictor=predictor, schema=schema, loaded=loaded, pace=pace)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
