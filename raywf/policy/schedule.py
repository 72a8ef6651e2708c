"""When the schedule asks for a retraining."""

from __future__ import annotations

from datetime import UTC, datetime

from croniter import croniter

from raywf.core.errors import SettingsError
from raywf.core.settings import RetrainSettings


def check_schedule(settings: RetrainSettings) -> None:
    """Refuse a cron text that names no instants, before anything starts.

    Raises:
        SettingsError: if `cron` is not valid.
    """
    if settings.cron is not None and not croniter.is_valid(settings.cron):
        raise SettingsError(
            f"retrain.cron: five fields such as '0 3 * * 1' are wanted, got {settings.cron!r}"
        )


def due_slot(settings: RetrainSettings, *, last: datetime | None, now: datetime) -> datetime | None:
    """Return the slot that is due at `now` and was not served at `last`; None if none is.

    `every` counts from `last`. `cron` is read in UTC; of several slots missed the newest counts.
    """
    if last is None:
        return None
    if settings.every is not None and last + settings.every <= now:
        return last + settings.every
    if settings.cron is not None:
        slot = _cron_before(settings.cron, now)
        if slot > last:
            return slot
    return None


def next_slot(settings: RetrainSettings, *, last: datetime | None, now: datetime) -> datetime | None:
    """Return the earliest slot after `now`; None without a schedule."""
    slots: list[datetime] = []
    if settings.every is not None and last is not None:
        slots.append(last + settings.every)
    if settings.cron is not None:
        slots.append(croniter(settings.cron, now.astimezone(UTC)).get_next(datetime))
    return min(slots, default=None)


def _cron_before(cron: str, now: datetime) -> datetime:
    instant = now.astimezone(UTC)
    if croniter.match(cron, instant) and instant.second == instant.microsecond == 0:
        return instant
    slot: datetime = croniter(cron, instant).get_prev(datetime)
    return slot
