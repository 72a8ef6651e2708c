"""API keys: who may call the endpoint, and for what. Of a key's secret only its SHA-256 is kept.

The keys of a workflow are in one file below the stores' root. Replicas read it again and again, so that a key
is added, replaced and taken away without a restart. Where there never was a key, calls need none.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import SettingsError, did_you_mean
from raywf.core.store import Store

Scope = Literal["predict", "outcomes", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_PREFIX = "rwf_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Someone who may call for `scopes` until `expires`, at most `rate` times a second (None: no limit)."""

    name: str
    scopes: tuple[Scope, ...]
    expires: datetime | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is kept: `digest` is the SHA-256 of the whole key as hexadecimal."""

    caller: Caller
    digest: str
    created: datetime


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
            return decode(_File, json.loads(self._store.read(self._path))).keys
        except FileNotFoundError:
            return None
        except (ValueError, DecodeError) as err:
            raise SettingsError(f"{self._store.uri(self._path)} does not hold API keys: {err}") from err

    def add(self, caller: Caller, *, now: datetime) -> str:
        """Make a key and return it: this is the only time that it is seen.

        Raises:
            SettingsError: if the name is taken or empty, or there is no scope.
        """
        known = self.read() or ()
        if not caller.name or any(key.caller.name == caller.name for key in known):
            raise SettingsError(
                f"there is a key {caller.name!r} already" if caller.name else "a key needs a name"
            )
        if not caller.scopes:
            raise SettingsError(f"a key needs a scope: {', '.join(SCOPES)}")
        token = _PREFIX + secrets.token_urlsafe(32)
        self._write((*known, ApiKey(caller=caller, digest=digest_of(token), created=now)))
        return token

    def remove(self, name: str) -> None:
        """Take a key away; where it was the last one, no call is allowed any more.

        Raises:
            SettingsError: if there is none of that name.
        """
        known = self.read() or ()
        names = [key.caller.name for key in known]
        if name not in names:
            raise SettingsError(f"there is no key {name!r}{did_you_mean(name, names)}")
        self._write(tuple(key for key in known if key.caller.name != name))

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        self._store.write(self._path, json.dumps(encode(_File(keys=keys)), indent=1).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    keys: tuple[ApiKey, ...] = ()


def digest_of(token: str) -> str:
    """Return what is kept of a key: it is long and random, so that a plain hash does not give it away."""
    return hashlib.sha256(token.encode()).hexdigest()
