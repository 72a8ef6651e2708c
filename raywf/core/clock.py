"""Where event time comes from: the wall, or the log that is being replayed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Tells the present instant of event time."""

    def now(self) -> datetime:
        """Return an aware UTC instant."""
        ...


@dataclass(frozen=True, slots=True)
class WallClock:
    """Event time is the wall's time."""

    def now(self) -> datetime:
        """Return the wall's instant, UTC."""
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class FixedClock:
    """Event time stands still; for replay and tests.

    >>> FixedClock(datetime(2013, 1, 1, tzinfo=UTC)).now().year
    2013
    """

    instant: datetime

    def now(self) -> datetime:
        """Return the given instant."""
        return self.instant


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 instant; one without an offset is taken as UTC.

    >>> parse_time("2013-01-01T05:00:00Z").isoformat()
    '2013-01-01T05:00:00+00:00'

    Raises:
        ValueError: if the text is not an ISO 8601 instant.

    """
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def format_time(value: datetime) -> str:
    """Write an instant as ISO 8601 with a trailing Z.

    >>> format_time(datetime(2013, 1, 1, tzinfo=UTC))
    '2013-01-01T00:00:00Z'
    """
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def to_microseconds(value: datetime) -> int:
    """Return an instant as microseconds since 1970.

    >>> to_microseconds(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return (value - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """Return microseconds since 1970 as an instant, UTC.

    >>> from_microseconds(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + timedelta(microseconds=value)
