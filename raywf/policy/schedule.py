"""When the schedule asks for a retraining."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from croniter import CroniterBadDateError, croniter

from raywf.core.errors import SettingsError
from raywf.core.retrain_settings import RetrainSettings
from raywf.core.zone import find_zone

_TICK = timedelta(microseconds=1)


def check_schedule(settings: RetrainSettings) -> None:
    """Refuse a cron text that names no instants, before anything starts.

    Raises:
        SettingsError: if `cron` is not valid.
    """
    if settings.cron is None:
        return
    if not croniter.is_valid(settings.cron):
        raise SettingsError(
            f"retrain.cron: five fields such as '0 3 * * 1' are wanted, got {settings.cron!r}"
        )
    try:
        croniter(settings.cron, datetime(2000, 1, 1, tzinfo=UTC)).get_next(datetime)
    except CroniterBadDateError as err:
        raise SettingsError(f"retrain.cron: no such day ever comes: {settings.cron!r}") from err


def due_slot(settings: RetrainSettings, *, last: datetime | None, now: datetime) -> datetime | None:
    """Return the slot that is due at `now` and was not served at `last`; None if none is.

    `every` counts from `last`. `cron` is read in `timezone`; of several slots missed the newest counts. A
    slot in an hour that the clock leaps over is due at the leap, and one in an hour that comes twice at the
    first time.
    """
    if last is None:
        return None
    if settings.every is not None and last + settings.every <= now:
        return last + settings.every
    if settings.cron is not None:
        slot = _cron_before(settings.cron, now, find_zone(settings.timezone))
        if slot > last:
            return slot
    return None


def next_slot(settings: RetrainSettings, *, last: datetime | None, now: datetime) -> datetime | None:
    """Return the earliest slot after `now`; None without a schedule."""
    slots: list[datetime] = []
    if settings.every is not None and last is not None:
        slots.append(last + settings.every)
    if settings.cron is not None:
        zone = find_zone(settings.timezone)
        steps = croniter(settings.cron, now.astimezone(zone))
        slots.append(_first_time(zone, lambda: steps.get_next(datetime)))
    return min(slots, default=None)


def local_text(slot: datetime, settings: RetrainSettings) -> str:
    """Return a slot as it reads in the schedule's zone; empty in UTC.

    >>> local_text(datetime(2024, 7, 1, tzinfo=UTC), RetrainSettings(timezone="Europe/Berlin"))
    ' (02:00 in Europe/Berlin)'
    """
    if settings.timezone == "UTC":
        return ""
    return f" ({slot.astimezone(find_zone(settings.timezone)):%H:%M} in {settings.timezone})"


def _cron_before(cron: str, now: datetime, zone: tzinfo) -> datetime:
    steps = croniter(cron, (now + _TICK).astimezone(zone))  # what it returns lies before, and now counts too
    return _first_time(zone, lambda: steps.get_prev(datetime))


def _first_time(zone: tzinfo, step: Callable[[], datetime]) -> datetime:
    """Step on to a slot that is no second time of an hour; croniter's own `fold` does not tell."""
    while True:
        slot = step().astimezone(UTC).replace(fold=0)
        if slot.astimezone(zone).fold == 0:
            return slot
