"""Lets a request pass whose API key or JSON web token allows what it asks for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from raywf.core.clock import Clock
from raywf.core.errors import SettingsError
from raywf.serving.keys import Caller, KeyBook, Scope, digest_of
from raywf.serving.requests import RequestError
from raywf.serving.tokens import TokenReader

REFRESH_S = 1.0
_MOST_TOKENS = 10_000  # that are remembered as good

_logger = logging.getLogger(__name__)


class Guard:
    """Refuses a request without a key or token that allows it.

    With `may_be_open` calls need none while there never was a key. `share` is this replica's part of each
    key's rate. Not thread-safe but for `refresh`.
    """

    def __init__(
        self,
        book: KeyBook,
        clock: Clock,
        *,
        may_be_open: bool,
        tokens: TokenReader | None = None,
        share: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book, self._clock, self._tokens = book, clock, tokens
        self._share, self._monotonic = share, monotonic
        self._keys: dict[str, Caller] | None = None if may_be_open and tokens is None else {}
        self._good: dict[str, Caller] = {}
        self._buckets: dict[str, _Bucket] = {}
        self.refresh()

    @property
    def is_open(self) -> bool:
        """Whether calls need no key."""
        return self._keys is None

    def refresh(self) -> None:
        """Read the keys again; those known stay where that fails."""
        try:
            found = self._book.read()
        except (OSError, SettingsError) as err:
            _logger.warning("the API keys cannot be read, those known stay: %s", err)
            self._keys = self._keys if self._keys is not None else {}  # there are some, so that none is open
        else:
            if found is not None:
                self._keys = {key.digest: key.caller for key in found}
        if self._tokens is not None and self._tokens.refresh():
            self._good = {}  # what the provider's former keys vouched for

    def check(self, authorization: str | None, scope: Scope | None) -> str | None:
        """Return the caller's name, None where calls need no key; without a `scope` any key will do.

        Raises:
            RequestError: 401 without a known key, 403 if it is not for this, 429 beyond its rate.
        """
        if self._keys is None:
            return None
        kind, _, token = (authorization or "").partition(" ")
        caller = self._caller(token.strip()) if kind.lower() == "bearer" else None
        if caller is None or (caller.expires is not None and self._clock.now() >= caller.expires):
            reason = "a valid API key is needed: authorization: Bearer KEY"
            raise RequestError(401, reason, headers={"www-authenticate": "Bearer"})
        if scope is not None and scope not in caller.scopes:
            raise RequestError(403, f"this key is for {', '.join(caller.scopes)}, not for {scope}")
        if caller.rate is not None:
            wait_s = self._bucket(caller.name, caller.rate).take(self._monotonic())
            if wait_s > 0:
                reason = f"more than {caller.rate:g} requests a second with this key"
                raise RequestError(429, reason, headers={"retry-after": str(max(1, round(wait_s)))})
        return caller.name

    def _caller(self, token: str) -> Caller | None:
        digest = digest_of(token)
        known = (self._keys or {}).get(digest)
        if known is not None or self._tokens is None:
            return known
        found = self._good.get(digest) or self._tokens.read(token)
        if found is not None:
            while len(self._good) >= _MOST_TOKENS:
                del self._good[next(iter(self._good))]
            self._good[digest] = found
        return found

    def _bucket(self, name: str, rate: float) -> _Bucket:
        here = rate * self._share
        bucket = self._buckets.get(name)
        if bucket is None or bucket.rate != here:
            bucket = self._buckets[name] = _Bucket(here, self._monotonic())
        return bucket


class _Bucket:
    """Refills at `rate` a second up to a second's worth, at least one."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate, self._most = rate, max(1.0, rate)
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
        try:
            guard.refresh()
        except Exception:  # this thread must outlive whatever a store's client raises
            _logger.exception("reading the API keys failed, those known stay")
