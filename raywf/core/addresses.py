"""Which network addresses are safe to talk to in the clear."""

from __future__ import annotations

from urllib.parse import urlsplit

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def is_safe_address(address: str) -> bool:
    """Whether an address is https, or http of this machine alone.

    >>> is_safe_address("https://login.example.com"), is_safe_address("http://login.example.com")
    (True, False)
    """
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
