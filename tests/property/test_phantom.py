"""When the daily test is due: once a night by the clinic's clock, whatever the clock does, and soon again after a failure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from edge.phantom import AGAIN, HOUR, due

ZONES = st.sampled_from(
    ["UTC", "Africa/Dakar", "Asia/Kathmandu", "Europe/Berlin", "Pacific/Kiritimati", "America/New_York"]
)
MOMENTS = st.datetimes(datetime(2026, 11, 1), datetime(2031, 1, 1), timezones=st.just(UTC))


@given(start=MOMENTS, zone=ZONES.map(ZoneInfo), minutes=st.integers(1, 90))
def test_one_test_a_night_at_three(start: datetime, zone: ZoneInfo, minutes: int) -> None:
    """Asked every so often for four days, also over a change to summer time."""
    made, tests, at = start, [], start
    while at - start < timedelta(days=4):
        at += timedelta(minutes=minutes)
        if due(made, False, at, zone):
            made = at
            tests.append(at)
    local = [test.astimezone(zone) for test in tests]
    assert len({one.date() for one in local}) == len(local), "never twice a day"
    for one in local:
        late = one - one.replace(hour=HOUR.hour, minute=0, second=0, microsecond=0)
        assert timedelta() <= late <= timedelta(minutes=minutes, hours=1)
    assert len(local) in (3, 4, 5)


@given(at=MOMENTS, zone=ZONES.map(ZoneInfo), ahead=st.timedeltas(timedelta(seconds=1), timedelta(days=3000)))
def test_a_clock_that_was_set_back_puts_no_test_off(at: datetime, zone: ZoneInfo, ahead: timedelta) -> None:
    assert due(at + ahead, False, at, zone)
    assert not due(at, False, at, zone), "and the one that is made then is enough"


@given(at=MOMENTS, zone=ZONES.map(ZoneInfo), since=st.timedeltas(timedelta(), timedelta(hours=2)))
def test_after_a_failure_it_is_due_soon(at: datetime, zone: ZoneInfo, since: timedelta) -> None:
    assert due(at - since, True, at, zone) is (since >= AGAIN or due(at - since, False, at, zone))


@given(at=MOMENTS, zone=ZONES.map(ZoneInfo))
def test_the_first_is_due_at_once(at: datetime, zone: ZoneInfo) -> None:
    assert due(None, False, at, zone)
