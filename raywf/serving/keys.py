"""API keys: who may call the endpoint, and for what. Of a key's secret only its SHA-256 is kept.

The keys of a workflow are in one file below the stores' root. Replicas read it again when it changes, so that a
key is added, replaced and taken away without a restart. Where there never was a key, calls need none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from raywf.core.clock import Clock
from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import SettingsError, did_you_mean
from raywf.core.store import Store
from raywf.serving.requests import RequestError

Scope = Literal["predict", "outcomes", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
REFRESH_S = 1.0
_PREFIX = "rwf_"
_BURST_S = 1.0  # a caller may take so many seconds' requests at once

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept.

    `digest` is the SHA-256 of the whole key as hexadecimal; `rate` the most requests a second, of all replicas
    together (None: no limit); from `expires` on it is refused.
    """

    name: str
    digest: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None = None
    rate: float | None = None


class KeyBook:
    """The keys of one workflow, in ``keys/<workflow>.json`` below the stores' root."""

    def __init__(self, root: str, workflow: str) -> None:
        self._store, self._path = Store(root), f"keys/{workflow}.json"

    def read(self) -> tuple[ApiKey, ...] | None:
        """Return the keys, or None where none was ever made.

        Raises:
            SettingsError: if the file is not one of keys.
        """
        try:
            stored = json.loads(self._store.read(self._path))
            return decode(_File, stored).keys
        except FileNotFoundError:
            return None
        except (ValueError, DecodeError) as err:
            raise SettingsError(f"{self._store.uri(self._path)} does not hold API keys: {err}") from err

    def modified_s(self) -> float | None:
        """Return when the keys were last written, in seconds since 1970."""
        return self._store.modified_s(self._path)

    def add(
        self,
        name: str,
        scopes: tuple[Scope, ...],
        *,
        now: datetime,
        expires: datetime | None = None,
        rate: float | None = None,
    ) -> str:
        """Make a key and return it: this is the only time that it is seen.

        Raises:
            SettingsError: if the name is taken or empty, or there is no scope.
        """
        known = self.read() or ()
        if not name or any(key.name == name for key in known):
            raise SettingsError(f"there is a key {name!r} already" if name else "a key needs a name")
        if not scopes:
            raise SettingsError(f"a key needs a scope: {', '.join(SCOPES)}")
        token = _PREFIX + secrets.token_urlsafe(32)
        made = ApiKey(
            name=name, digest=digest_of(token), scopes=scopes, created=now, expires=expires, rate=rate
        )
        self._write((*known, made))
        return token

    def remove(self, name: str) -> None:
        """Take a key away; where it was the last one, no call is allowed any more.

        Raises:
            SettingsError: if there is none of that name.
        """
        known = self.read() or ()
        if all(key.name != name for key in known):
            raise SettingsError(f"there is no key {name!r}{did_you_mean(name, (k.name for k in known))}")
        self._write(tuple(key for key in known if key.name != name))

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        self._store.write(self._path, json.dumps(encode(_File(keys=keys)), indent=1).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    keys: tuple[ApiKey, ...] = ()


def digest_of(token: str) -> str:
    """Return what is kept of a key: it is long and random, so that a plain hash does not give it away."""
    return hashlib.sha256(token.encode()).hexdigest()


class Guard:
    """Refuses a request without a key that allows it; open while no key was ever seen.

    `share` is this replica's part of each key's rate. Not thread-safe but for `refresh`.
    """

    def __init__(
        self,
        book: KeyBook,
        clock: Clock,
        *,
        share: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book, self._clock, self._share, self._monotonic = book, clock, share, monotonic
        self._keys: dict[str, ApiKey] | None = None
        self._buckets: dict[str, _Bucket] = {}
        self._modified: float | None = None
        self.refresh()

    @property
    def is_open(self) -> bool:
        """Whether calls need no key."""
        return self._keys is None

    def refresh(self) -> None:
        """Read the keys again if they were written since; those known stay where that fails."""
        try:
            modified = self._book.modified_s()
            if modified is None or modified == self._modified:
                return
            found = self._book.read()
        except (OSError, SettingsError) as err:
            _logger.warning("the API keys cannot be read, those known stay: %s", err)
            self._keys = self._keys if self._keys is not None else {}  # there are some, so that none is open
            return
        self._modified = modified
        if found is not None:
            self._keys = {key.digest: key for key in found}

    def check(self, authorization: str | None, scope: Scope | None) -> str | None:
        """Return the caller's name, None where calls need no key; without a `scope` any key will do.

        Raises:
            RequestError: 401 without a known key, 403 if it is not for this, 429 beyond its rate.
        """
        keys = self._keys
        if keys is None:
            return None
        kind, _, token = (authorization or "").partition(" ")
        key = keys.get(digest_of(token.strip())) if kind.lower() == "bearer" else None
        if key is None or (key.expires is not None and self._clock.now() >= key.expires):
            reason = "a valid API key is needed: authorization: Bearer KEY"
            raise RequestError(401, reason, headers={"www-authenticate": "Bearer"})
        if scope is not None and scope not in key.scopes:
            raise RequestError(403, f"this key is for {', '.join(key.scopes)}, not for {scope}")
        wait_s = 0.0 if key.rate is None else self._bucket(key.digest, key.rate).take(self._monotonic())
        if wait_s > 0:
            reason = f"more than {key.rate:g} requests a second with this key"
            raise RequestError(429, reason, headers={"retry-after": str(max(1, round(wait_s)))})
        return key.name

    def _bucket(self, digest: str, rate: float) -> _Bucket:
        here = rate * self._share
        bucket = self._buckets.get(digest)
        if bucket is None or bucket.rate != here:
            bucket = self._buckets[digest] = _Bucket(here, self._monotonic())
        return bucket


class _Bucket:
    """Refills at `rate` a second up to a second's worth, at least one."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate, self._most = rate, max(1.0, rate * _BURST_S)
        self._left, self._at = self._most, now

    def take(self, now: float) -> float:
        """Take one, and return 0; or the seconds until there is one again."""
        self._left = min(self._most, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.rate


def keep_fresh(guard: Guard, stop: threading.Event, *, every_s: float = REFRESH_S) -> None:
    """Refresh again and again until `stop` is set; meant for a daemon thread."""
    while not stop.wait(every_s):
        guard.refresh()
