"""Slots of a schedule, and what the clock's change makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.clock import parse_time
from raywf.core.errors import SettingsError
from raywf.core.retrain_settings import RetrainSettings
from raywf.policy.schedule import check_schedule, due_slot, next_slot

BERLIN = "Europe/Berlin"
LAST = datetime(2020, 1, 1, tzinfo=UTC)
CASES = [  # in 2024 Berlin's clock leaps on 31 March at 01:00 UTC, and back on 27 October at 01:00 UTC
    ("30 2 * * *", "UTC", "2024-03-31T02:30:00Z", "2024-03-31T02:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-03-30T12:00:00Z", "2024-03-30T01:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-03-31T00:59:59Z", "2024-03-30T01:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-03-31T01:00:00Z", "2024-03-31T01:00:00Z"),
    ("30 2 * * *", BERLIN, "2024-03-31T12:00:00Z", "2024-03-31T01:00:00Z"),
    ("30 2 * * *", BERLIN, "2024-04-01T12:00:00Z", "2024-04-01T00:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-10-27T00:29:59Z", "2024-10-26T00:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-10-27T00:30:00Z", "2024-10-27T00:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-10-27T01:15:00Z", "2024-10-27T00:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-10-27T01:30:00Z", "2024-10-27T00:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-10-27T23:00:00Z", "2024-10-27T00:30:00Z"),
    ("30 2 * * *", BERLIN, "2024-10-28T01:30:00Z", "2024-10-28T01:30:00Z"),
    ("0 3 * * 1", "America/New_York", "2024-07-01T06:59:00Z", "2024-06-24T07:00:00Z"),
    ("0 3 * * 1", "America/New_York", "2024-07-01T07:00:00Z", "2024-07-01T07:00:00Z"),
]


@pytest.mark.parametrize(("cron", "words"), [("0 0 30 2 *", "no such day"), ("61 * * * *", "five fields")])
def test_instants_that_never_come_are_refused(cron, words):
    """Before anything starts; a leap day does come."""
    with pytest.raises(SettingsError, match=words):
        check_schedule(RetrainSettings(cron=cron))
    check_schedule(RetrainSettings(cron="0 0 29 2 *"))


@pytest.mark.parametrize(("cron", "zone", "now", "slot"), CASES)
def test_the_newest_slot_is_due(cron, zone, now, slot):
    """In the zone's own time, at a leap where its time is not, once where its time is twice."""
    found = due_slot(RetrainSettings(cron=cron, timezone=zone), last=LAST, now=parse_time(now))
    assert found == parse_time(slot)


@pytest.mark.parametrize(
    ("now", "slot"),
    [
        ("2024-03-30T12:00:00Z", "2024-03-31T01:00:00Z"),
        ("2024-03-31T01:00:00Z", "2024-04-01T00:30:00Z"),
        ("2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"),
        ("2024-10-27T01:00:00Z", "2024-10-28T01:30:00Z"),
    ],
)
def test_the_next_slot(now, slot):
    """The second time of an hour has none."""
    told = RetrainSettings(cron="30 2 * * *", timezone=BERLIN)
    assert next_slot(told, last=LAST, now=parse_time(now)) == parse_time(slot)


def test_a_slot_that_was_served_is_not_due():
    """Also when its hour comes again."""
    told = RetrainSettings(cron="30 2 * * *", timezone=BERLIN)
    served = parse_time("2024-10-27T00:30:00Z")
    assert due_slot(told, last=served, now=parse_time("2024-10-27T01:45:00Z")) is None


@settings(max_examples=100, deadline=None)
@given(
    st.datetimes(datetime(2023, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["30 2 * * *", "0 */6 * * *", "15 1 * * 0"]),
    st.sampled_from([BERLIN, "UTC", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu"]),
)
def test_slots_lie_around_now(now, cron, zone):
    """The due one is not later, the next one is, and between them there is none."""
    told = RetrainSettings(cron=cron, timezone=zone)
    due, coming = due_slot(told, last=LAST, now=now), next_slot(told, last=LAST, now=now)
    assert due <= now < coming
    assert due_slot(told, last=LAST, now=coming - timedelta(seconds=1)) == due
    assert due_slot(told, last=LAST, now=coming) == coming
