"""The models of one replica: the one that serves, the one before it, and those prepared for a swap.

A swap is prepare (load beside, off the request path) then commit (one attribute assignment). `follow` makes a
replica that missed a swap converge to the alias by itself.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from raywf.core.errors import BundleError, RegistryError, ServingError
from raywf.core.records import ModelVersion
from raywf.core.source import ModelSource
from raywf.serving.cache import BundleCache, LoadedModel

ALIAS = "champion"
MAX_PREPARED = 2

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What one replica answers to a swap verb; `version` is what it serves now."""

    replica: str
    ok: bool
    version: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The last version that this replica would not load, and why."""

    version: str
    reason: str
    time: datetime


class ModelSlots:
    """Holds the models of one replica; `active` may be read from any thread, and is replaced whole.

    Raises:
        ServingError: if neither the alias nor the cache gives a model.

    """

    def __init__(self, source: ModelSource, cache: BundleCache) -> None:
        self._source, self._cache = source, cache
        self._loading, self._changing = threading.Lock(), threading.Lock()
        self._prepared: dict[str, LoadedModel] = {}
        self._broken: set[tuple[str, str]] = set()
        self._seen: tuple[str, str] | None = None
        self.replica = f"{socket.gethostname()}:{os.getpid()}"
        self.previous: LoadedModel | None = None
        self.last_refused: Refused | None = None
        self.origin: Literal["registry", "cache"] = "registry"
        self.active = self._first()
        self.remember()

    def prepare(self, version: ModelVersion) -> ReplicaStatus:
        """Load and check a version beside the active one; slow, idempotent, never raises for a bad bundle.

        The active version and the one before it are there already.
        """
        start = time.perf_counter()
        try:
            with self._loading:
                model = self._warm(version) or self._cache.load(version)
        except (BundleError, RegistryError, OSError) as err:
            self._refuse(version, err)
            return self._status(ok=False, reason=str(err), start=start)
        with self._changing:
            self._prepared.pop(version.version, None)
            self._prepared[version.version] = model
            while len(self._prepared) > MAX_PREPARED:
                del self._prepared[next(iter(self._prepared))]
        return self._status(ok=True, start=start)

    def commit(self, version: str) -> ReplicaStatus:
        """Serve a prepared version from the next request on; idempotent."""
        with self._changing:
            model = self._prepared.pop(version, None)
            if self.active.version.version == version:
                return self._status(ok=True)
            if model is None:
                return self._status(ok=False, reason=f"version {version!r} is not prepared")
            self.previous = self.active
            self.active = model
            self.origin = "registry"
        return self._status(ok=True)

    def abort(self, version: str) -> ReplicaStatus:
        """Drop a prepared version; idempotent."""
        with self._changing:
            self._prepared.pop(version, None)
        return self._status(ok=True)

    def served(self) -> ReplicaStatus:
        """Say what is served."""
        return self._status(ok=True)

    def remember(self) -> None:
        """Name the active model in the cache as the last good one."""
        try:
            self._cache.remember(self.active)
        except OSError as err:
            _logger.warning("the last good model could not be noted: %s", err)

    def converge(self) -> None:
        """Compare with the alias; load and serve its version at the second call that finds it different.

        One call's patience leaves a swap under way alone. A version that was refused for its files is not
        tried again; one that could not be fetched is.

        Raises:
            RegistryError: if the alias cannot be resolved.

        """
        wanted = self._source.resolve(ALIAS)
        key = _key(wanted)
        if key == _key(self.active.version):
            self._seen, self.origin = None, "registry"
            return
        seen, self._seen = self._seen, key
        if seen != key or key in self._broken:
            return
        if self.prepare(wanted).ok and self.commit(wanted.version).ok:
            self.remember()

    def _first(self) -> LoadedModel:
        try:
            wanted = self._source.resolve(ALIAS)
        except RegistryError as err:
            return self._from_cache(err)
        try:
            return self._cache.load(wanted)
        except (BundleError, RegistryError, OSError) as err:
            self._refuse(wanted, err)
            return self._from_cache(err)

    def _from_cache(self, cause: Exception) -> LoadedModel:
        good = self._cache.last_good()
        if good is None:
            raise ServingError(f"no model to serve: {cause}; nothing in {self._cache.folder}") from cause
        _logger.warning("serving version %s from the cache: %s", good.version, cause)
        self.origin = "cache"
        try:
            return self._cache.load(good)
        except (BundleError, RegistryError, OSError) as err:
            raise ServingError(f"no model to serve: {cause}; the cached one: {err}") from err

    def _warm(self, version: ModelVersion) -> LoadedModel | None:
        for model in (self.active, self.previous):
            if model is not None and _key(model.version) == _key(version):
                return model
        return None

    def _refuse(self, version: ModelVersion, err: Exception) -> None:
        if isinstance(err, BundleError):
            self._broken.add(_key(version))
        self.last_refused = Refused(version=version.version, reason=str(err), time=datetime.now(UTC))

    def _status(self, *, ok: bool, reason: str = "", start: float | None = None) -> ReplicaStatus:
        seconds = 0.0 if start is None else time.perf_counter() - start
        served = self.active.version.version
        return ReplicaStatus(replica=self.replica, ok=ok, version=served, reason=reason, seconds=seconds)


def follow(slots: ModelSlots, stop: threading.Event, *, every_s: float) -> None:
    """Converge to the alias again and again until `stop` is set; meant for a daemon thread."""
    while not stop.wait(every_s):
        try:
            slots.converge()
        except RegistryError as err:
            _logger.info("the alias cannot be resolved, the model stays: %s", err)
        except Exception:  # this thread must outlive whatever a registry's client raises
            _logger.exception("converging to the alias failed, the model stays")


def _key(version: ModelVersion) -> tuple[str, str]:
    return version.version, version.digest
