"""Identifiers that are functions of what they name, so that doing a thing twice gives it once."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def stable_id(*parts: Any, length: int = 12) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of the parts' canonical JSON.

    >>> stable_id("flights", 1) == stable_id("flights", 1)
    True
    >>> len(stable_id("flights"))
    12
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def stable_number(text: str) -> int:
    """Return a whole number of 63 bits made of a text.

    >>> stable_number("a") == stable_number("a") != stable_number("b")
    True
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:<hex>`` of the data."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
