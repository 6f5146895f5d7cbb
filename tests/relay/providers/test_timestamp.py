"""The times that git servers write into their webhooks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events.event import MAX_TIME
from relay.events.timestamp import LATEST, parse_timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = 1_769_860_800
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.integers(1, LATEST - 2 * 86_400).map(lambda s: EPOCH + timedelta(days=1, seconds=s))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (SECONDS, SECONDS),
        ("2026-01-31T12:00:00Z", SECONDS),
        ("2026-01-31T12:00:00+00:00", SECONDS),
        ("2026-01-31T13:00:00.500+01:00", SECONDS + 0.5),
        ("2026-01-31 12:00:00 UTC", SECONDS),
        ("2026-01-31 11:00:00 -0100", SECONDS),
        ("2026-01-31 17:30:00 +0530", SECONDS),
        (1, 1),
        (LATEST, LATEST),
    ],
)
def test_forms_of_a_time(value: int | str, seconds: float) -> None:
    parsed = parse_timestamp(value)
    assert parsed == seconds
    assert isinstance(parsed, float)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 0, -1, LATEST + 1, 2**63, SECONDS * 1_000, 10**400),
        *("", "yesterday", str(SECONDS), "2026-01-31", "2026-01-31T12:00:00"),
        *("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
        *("2026-02-30T12:00:00Z", "\uff12026-01-31T12:00:00Z", "\ud800"),
        "2026-01-31T12:00:00." + "0" * MAX_TIME + "Z",
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_time(value: int | str | None) -> None:
    assert parse_timestamp(value) is None


@given(time=times, zone=zones)
def test_every_time_is_read_in_every_zone_and_form(time: datetime, zone: timezone) -> None:
    seconds = (time - EPOCH).total_seconds()
    local = time.astimezone(zone)
    assert parse_timestamp(int(seconds)) == seconds
    assert parse_timestamp(local.isoformat()) == seconds
    assert parse_timestamp(local.strftime("%Y-%m-%d %H:%M:%S %z")) == seconds
    utc = time.replace(tzinfo=None).isoformat(sep=" ")
    assert parse_timestamp(f"{utc} UTC") == seconds
    assert parse_timestamp(f"{utc.replace(' ', 'T')}Z") == seconds


@given(st.text(max_size=2 * MAX_TIME) | st.integers() | st.none())
def test_any_value_is_a_time_or_none(value: int | str | None) -> None:
    seconds = parse_timestamp(value)
    assert seconds is None or 0 < seconds <= LATEST
