"""When a target may be called: hours of the week and freezes, over changes of clocks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.hours import Hours

BERLIN = "Europe/Berlin"
ZONES = st.sampled_from(["UTC", BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata"])
MOMENTS = st.floats(1_700_000_000, 1_900_000_000)
CLOCKS = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
DAYS = st.sampled_from(["", "mon-fri ", "sat,sun ", "fri-mon ", "wed "])
WEEKLY = st.builds("{}{}-{}".format, DAYS, CLOCKS, CLOCKS | st.just("24:00"))
DATES = st.datetimes(datetime(2023, 11, 1), datetime(2030, 6, 1))  # noqa: DTZ001
FREEZES = st.builds(
    lambda start, days: f"{start:%Y-%m-%d %H:%M} to {start + timedelta(days):%Y-%m-%d %H:%M}",
    DATES,
    st.floats(0.1, 400),
)


def hours(zone: str = "UTC", **keys: Any) -> Hours:
    return Hours.model_validate({"zone": zone, **keys})


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def opening(open_hours: Hours, text: str, zone: str = "UTC") -> str:
    """When it opens next, on the zone's clock."""
    moment = datetime.fromtimestamp(open_hours.opening(at(text, zone)), ZoneInfo(zone))
    return f"{moment:%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-25 10:00", "2026-11-25 10:00"),
        ("2026-11-25 09:00", "2026-11-25 09:00"),
        ("2026-11-25 08:59", "2026-11-25 09:00"),
        ("2026-11-25 17:00", "2026-11-26 09:00"),
        ("2026-11-27 12:30", "2026-11-28 22:00"),
        ("2026-11-29 01:59", "2026-11-29 01:59"),
        ("2026-11-29 02:00", "2026-11-30 09:00"),
        # The freeze begins on a day that would be open, and ends on one that is.
        ("2026-12-21 10:00", "2027-01-04 09:00"),
    ],
)
def test_hours_of_the_week(now: str, expected: str) -> None:
    weekly = hours(
        BERLIN,
        open=["mon-thu 09:00-17:00", "fri 09:00-12:00", "sat 22:00-02:00"],
        freeze="2026-12-21 to 2027-01-03",
    )

    assert opening(weekly, now, BERLIN) == expected


def test_hours_that_are_not_given_are_always() -> None:
    frozen = hours(freeze=["2026-12-24", "2026-12-31 12:00 to 2027-01-01 06:30"])

    assert opening(frozen, "2026-12-23 23:59") == "2026-12-23 23:59"
    assert opening(frozen, "2026-12-24 00:00") == "2026-12-25 00:00"
    assert opening(frozen, "2026-12-31 12:00") == "2027-01-01 06:30"


def test_a_freeze_that_ends_in_another_is_left_at_the_last_of_them() -> None:
    frozen = hours(freeze=["2026-12-26 to 2026-12-31", "2026-12-24 to 2026-12-26"])

    assert opening(frozen, "2026-12-24 08:00") == "2027-01-01 00:00"


def test_clocks_that_are_put_back_show_the_hour_twice_and_it_is_open_both_times() -> None:
    weekly = hours(BERLIN, open="sun 02:15-02:45")
    start = at("2026-10-25 00:15")

    assert weekly.opening(start - 60) == start
    assert weekly.opening(start + 3_600) == start + 3_600
    assert weekly.opening(start + 3_600 + 1_800) == at("2026-11-01 01:15")


def test_hours_that_clocks_are_put_forward_over_come_later_or_not_at_all() -> None:
    before = at("2026-03-29 00:00")

    assert hours(BERLIN, open="sun 02:30-04:30").opening(before) == at("2026-03-29 01:30")
    assert hours(BERLIN, open="sun 02:15-02:45").opening(before) == at("2026-03-29 01:15")
    swallowed = hours(BERLIN, open="sun 02:30-03:15")
    assert swallowed.opening(before) == at("2026-04-05 00:30")
    assert swallowed.opening(at("2026-03-23 00:00")) == at("2026-04-05 00:30")


@given(ZONES, st.lists(WEEKLY, max_size=4), st.lists(FREEZES, max_size=4), MOMENTS)
def test_it_opens_as_soon_as_it_is_open(
    zone: str, weekly: list[str], freezes: list[str], now: float
) -> None:
    if not weekly and not freezes:
        return
    open_hours = hours(zone, open=weekly, freeze=freezes)
    opened = open_hours.opening(now)

    assert opened >= now
    assert open_hours.opening(opened) == opened
    for part in range(1, 20):
        between = now + (opened - now) * part / 20
        assert open_hours.opening(between) == opened


@given(st.lists(WEEKLY, min_size=1, max_size=3), MOMENTS)
def test_without_changes_of_clocks_it_is_open_when_the_clock_says_so(
    weekly: list[str], now: float
) -> None:
    clock = datetime.fromtimestamp(now, ZoneInfo("Asia/Kolkata"))

    def within(text: str) -> bool:
        days, _, times = text.rpartition(" ")
        start, _, end = times.partition("-")
        names = {"": range(7), "mon-fri": range(5), "sat,sun": (5, 6), "fri-mon": (4, 5, 6, 0)}
        on = names.get(days, (2,))
        shown, today = f"{clock:%H:%M}", clock.weekday()
        if start < end:
            return today in on and start <= shown < end
        return (today in on and shown >= start) or ((today - 1) % 7 in on and shown < end)

    is_open = hours("Asia/Kolkata", open=weekly).opening(now) == now
    assert is_open == any(within(text) for text in weekly)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"zone": "UTC"}, "say when it is open, or give a freeze"),
        ({"zone": "Mars/Olympus", "open": "sat"}, "not a time zone"),
        ({"zone": "../UTC", "open": "sat"}, "not a time zone"),
        ({"zone": "UTC", "open": "monday 9-17"}, "not opening hours"),
        ({"zone": "UTC", "open": "09:00-24:30"}, "not opening hours"),
        ({"zone": "UTC", "freeze": "christmas"}, "not a freeze"),
        ({"zone": "UTC", "freeze": "2026-02-30"}, "day"),
        ({"zone": "UTC", "freeze": "2026-12-24 18:00"}, "needs an end"),
        ({"zone": "UTC", "freeze": "2026-12-24 to 2026-12-23"}, "must end after it begins"),
        ({"zone": "UTC", "open": ["sat"] * 101}, "100"),
    ],
)
def test_what_is_no_hours_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Hours.model_validate(keys)
