"""Durations as people write them: ``90s``, ``15m``, ``3h``, ``45d``, ``2w``."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")


def parse_duration(text: str) -> timedelta:
    """Read a duration.

    >>> parse_duration("45d")
    datetime.timedelta(days=45)

    Raises:
        ValueError: if the text is not a number followed by ms, s, m, h, d or w.

    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"a duration is a number and a unit (ms, s, m, h, d, w) such as '45d', got {text!r}")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def format_duration(value: timedelta) -> str:
    """Write a duration so that `parse_duration` reads it back.

    >>> format_duration(timedelta(hours=36))
    '36h'
    """
    milliseconds = round(value / timedelta(milliseconds=1))
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
