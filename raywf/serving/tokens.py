"""Callers that an OpenID provider vouches for: JSON web tokens, checked by its public keys."""

from __future__ import annotations

import json
import logging
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import jwt

from raywf.core.addresses import is_safe_address
from raywf.core.serving_settings import OidcSettings
from raywf.serving.keys import SCOPES, Caller

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY_S = 30
_FETCH_S = 5.0
_EVERY_S = 600.0  # how often the provider's keys are fetched
_AGAIN_S = 15.0  # and, where a token names an unknown one or a fetch failed, at the earliest
_LONGEST = 16_384
_MOST_BYTES = 1_000_000

_logger = logging.getLogger(__name__)


class TokenReader:
    """Tells who a token is from: `refresh` fetches the provider's keys if that is due, `read` never waits."""

    def __init__(self, settings: OidcSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._monotonic = settings, monotonic
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._is_wanted = True

    def refresh(self) -> bool:
        """Fetch the keys if they are old, or a token named one that is not known; return whether it did."""
        age_s = float("inf") if self._fetched is None else self._monotonic() - self._fetched
        if age_s < (_AGAIN_S if self._is_wanted else _EVERY_S):
            return False
        self._fetched = self._monotonic()
        try:
            found = jwt.PyJWKSet.from_dict(_fetch(self._keys_url())).keys
        except (OSError, ValueError, jwt.PyJWTError) as err:
            _logger.warning("the keys of %s cannot be fetched: %s", self._settings.issuer, err)
            self._is_wanted = True
            return False
        self._keys = {key.key_id: key for key in found}
        self._is_wanted = False
        return True

    def read(self, token: str) -> Caller | None:
        """Return the token's caller; None where its signature, issuer, audience or time is not right."""
        if len(token) > _LONGEST:
            return None
        try:
            named = jwt.get_unverified_header(token).get("kid")
            key = self._keys.get(named)
            if key is None:
                self._is_wanted = True
                return None
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name] if key.algorithm_name in _ALGORITHMS else [],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError):
            return None
        return self._caller(claims)

    def _caller(self, claims: dict[str, Any]) -> Caller:
        stated = claims.get(self._settings.scope_claim) or ()
        words = stated.split() if isinstance(stated, str) else [str(word) for word in stated]
        prefix = self._settings.scope_prefix
        return Caller(
            name=str(claims.get("sub") or claims.get("client_id") or "token"),
            scopes=tuple(scope for scope in SCOPES if f"{prefix}{scope}" in words),
            expires=datetime.fromtimestamp(claims["exp"], UTC),
        )

    def _keys_url(self) -> str:
        if self._settings.keys_url is not None:
            return self._settings.keys_url
        found = _fetch(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        address = str(found.get("jwks_uri"))
        if not is_safe_address(address):
            raise ValueError(
                f"{self._settings.issuer} names an address of its keys that is not https: {address}"
            )
        return address


def _fetch(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=_FETCH_S) as answer:  # noqa: S310 the scheme was checked
        found = json.loads(answer.read(_MOST_BYTES))
    if not isinstance(found, dict):
        raise ValueError(f"{address} does not answer with an object")  # noqa: TRY004 as other bad JSON
    return cast("dict[str, Any]", found)
