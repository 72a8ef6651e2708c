"""Time zones by their IANA names."""

from __future__ import annotations

import difflib
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, available_timezones


def find_zone(name: str) -> tzinfo:
    """Return the zone of an IANA name; "UTC" needs no list of zones on the machine.

    >>> str(find_zone("Europe/Berlin"))
    'Europe/Berlin'

    Raises:
        ValueError: with the nearest name, if there is none of that name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as err:  # a zone's folder, a path, a name that is not there
        known = sorted(available_timezones())
        if not known:
            raise ValueError("this machine has no list of time zones; next: pip install tzdata") from err
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no time zone is named {name!r}{hint}") from err
