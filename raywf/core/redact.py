"""Texts without what must not be kept: passwords in addresses, tokens, secrets of the environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HIDDEN = "***"
_SECRET = r"(?:password|passwd|secret|token|api_?key|access_?key|credential)"  # noqa: S105 - what names look like
_NAMED = re.compile(_SECRET, re.IGNORECASE)
_NO_SECRETS = ("_PATH", "_FILE", "_URL", "_MODE")  # names of where one is, not of the secret itself
_SHORTEST = 8  # characters; a shorter value may be any word of the text
_IN_TEXT = (
    re.compile(r"(?<=://)([^\s:/@'\"]*):[^\s/'\"]+(?=@)"),  # https://name:password@host
    re.compile(rf"([?&]\w*{_SECRET}\w*)=[^&\s'\"]+", re.IGNORECASE),  # ?password=...
    re.compile(r"(authorization['\"]?: *(?:bearer|basic)|bearer) +[\w.~+/=-]{8,}", re.IGNORECASE),
)
_MARKS = (rf"\1:{HIDDEN}", rf"\1={HIDDEN}", rf"\1 {HIDDEN}")


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values, line by line, of the variables whose names say that they are secret, longest first.

    >>> secrets_of({"DB_PASSWORD": "correct horse", "RAY_AUTH_TOKEN_PATH": "/run/token", "HOME": "/home/ray"})
    ('correct horse',)
    """
    found = {
        line
        for name, value in environ.items()
        if _NAMED.search(name) and not name.upper().endswith(_NO_SECRETS)
        for line in value.splitlines()  # since texts are read by lines
        if len(line) >= _SHORTEST
    }
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with three stars for every secret in it; done twice it stays the same.

    >>> redact("postgresql://raywf:s3cret@db/mlflow took 2 s; key: correct horse", ["correct horse"])
    'postgresql://raywf:***@db/mlflow took 2 s; key: ***'
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, mark in zip(_IN_TEXT, _MARKS, strict=True):
        text = pattern.sub(mark, text)
    return text
