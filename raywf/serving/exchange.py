"""A request and its answer as plain values, whatever server carries them; header names are in lower case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from raywf.serving.requests import RequestError

JSON = "application/json"
RawHeaders = tuple[tuple[bytes, bytes], ...]


class Call(NamedTuple):
    """A request that was let in: headers, body, the name of who calls (None: no key is needed), and path."""

    headers: Mapping[bytes, bytes]
    body: bytes = b""
    caller: str | None = None
    path: str = ""

    def header(self, name: bytes) -> str | None:
        """Return a header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Reply(NamedTuple):
    """An answer: its headers beside ``content-type`` and ``content-length``."""

    body: bytes
    status: int = 200
    kind: str = JSON
    headers: RawHeaders = ()

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Return all headers as an ASGI server sends them."""
        length = b"%d" % len(self.body)
        return [(b"content-type", self.kind.encode()), (b"content-length", length), *self.headers]


def json_reply(data: Any, status: int = 200) -> Reply:
    """Return plain values as JSON."""
    return Reply(orjson.dumps(data), status)


def refusal(err: RequestError) -> Reply:
    """Return what a refused caller gets."""
    headers = tuple((name.encode(), value.encode()) for name, value in (err.headers or {}).items())
    return Reply(err.body(), err.status, headers=headers)
