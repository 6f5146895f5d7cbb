"""When a target may be called: hours of the week and freezes, in a time zone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from config.values import Strict, one_or_many

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = rf"(?:{'|'.join(_DAYS)})"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_DATE = r"20[0-9]{2}-[0-9]{2}-[0-9]{2}"
_WEEKLY = rf"{_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*"
_HOURS = rf"\s*(?:({_WEEKLY})\s+)?({_CLOCK})-({_CLOCK}|24:00)\s*|\s*({_WEEKLY})\s*"
_FREEZE = rf"\s*({_DATE})(?:\s+({_CLOCK}))?(?:\s+to\s+({_DATE})(?:\s+({_CLOCK}))?)?\s*"

_LOOK_AHEAD = 16
"""Days in which every weekday comes at least twice: a change of clocks can swallow one opening."""


class Weekly(NamedTuple):
    """Opening hours that come back each week."""

    days: frozenset[int]
    """0 is Monday."""
    start: time
    length: timedelta
    """On the clock; from 22:00 to 02:00 there are four hours."""


class Freeze(NamedTuple):
    """A time without deploys, on the zone's clock."""

    start: datetime
    end: datetime
    """The first moment after it."""


def parse_weekly(value: Any) -> Any:
    """Hours from text such as ``mon-thu 09:00-17:00``, ``22:00-02:00`` or ``sat,sun``.

    Without days it is every day, without hours all day; an end that is not after the start is the
    next day's. Raises ValueError for other text.
    """
    found = re.fullmatch(_HOURS, str(value))
    if not found:
        raise ValueError("not opening hours: write mon-thu 09:00-17:00, 22:00-02:00, or sat,sun")
    days, start, end, whole = found.groups()
    if whole:
        return Weekly(_days(whole), time(), timedelta(days=1))
    length = _minutes(end) - _minutes(start)
    return Weekly(
        _days(days or "mon-sun"),
        time.fromisoformat(start),
        timedelta(minutes=length if length > 0 else length + 24 * 60),
    )


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        start = _DAYS.index(first)
        count = (_DAYS.index(last or first) - start) % 7 + 1
        days |= {(start + number) % 7 for number in range(count)}
    return frozenset(days)


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def parse_freeze(value: Any) -> Any:
    """A freeze from text such as ``2026-12-24``, ``2026-12-20 to 2027-01-02`` (both days belong to
    it) or ``2026-12-23 18:00 to 2026-12-27 08:00``. Raises ValueError for other text."""
    found = re.fullmatch(_FREEZE, str(value))
    if not found:
        raise ValueError(
            "not a freeze: write 2026-12-24, 2026-12-20 to 2027-01-02, "
            "or 2026-12-23 18:00 to 2026-12-27 08:00"
        )
    first, first_clock, last, last_clock = found.groups()
    if first_clock and not last:
        raise ValueError("a freeze that begins at a time of day needs an end")
    start = datetime.fromisoformat(f"{first} {first_clock or '00:00'}")
    end = datetime.fromisoformat(f"{last or first} {last_clock or '00:00'}")
    if not last_clock:
        end += timedelta(days=1)
    if end <= start:
        raise ValueError("a freeze must end after it begins")
    return Freeze(start, end)


def parse_zone(value: Any) -> Any:
    """A time zone by its name in the IANA database. Raises ValueError for other names."""
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError, LookupError):
        raise ValueError("not a time zone: write UTC, or a name such as Europe/Berlin") from None


_TEXTS = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "maxItems": 100},
    ]
}


class Hours(Strict):
    """When deploys may be called; outside they wait. What is called is not cut off."""

    zone: Annotated[ZoneInfo, BeforeValidator(parse_zone), WithJsonSchema({"type": "string"})]
    """The time zone that the rest is meant in: UTC, Europe/Berlin."""
    open: Annotated[
        tuple[Annotated[Weekly, BeforeValidator(parse_weekly)], ...],
        BeforeValidator(one_or_many),
        Field(max_length=100),
        WithJsonSchema(_TEXTS),
    ] = ()
    """Hours of the week, such as mon-thu 09:00-17:00; always if left out."""
    freeze: Annotated[
        tuple[Annotated[Freeze, BeforeValidator(parse_freeze)], ...],
        BeforeValidator(one_or_many),
        Field(max_length=100),
        WithJsonSchema(_TEXTS),
    ] = ()
    """Times without deploys, such as 2026-12-20 to 2027-01-02, whatever the hours say."""

    @model_validator(mode="after")
    def _says_something(self) -> Hours:
        if not self.open and not self.freeze:
            raise ValueError("say when it is open, or give a freeze")
        return self

    def opening(self, now: float) -> float:
        """``now`` where deploys may be called, or else when they may be called next.

        In seconds since the Unix epoch. It always comes: freezes end, and hours come each week.
        """
        freezes = [(self._first(start), self._last(end)) for start, end in self.freeze]
        moment = now
        while True:
            thawed = max((end for start, end in freezes if start <= moment < end), default=moment)
            open_from = self._weekly_opening(thawed)
            if open_from == moment:
                return moment
            moment = open_from

    def _weekly_opening(self, moment: float) -> float:
        if not self.open:
            return moment
        today = datetime.fromtimestamp(moment, self.zone).date()
        for offset in range(-1, _LOOK_AHEAD):
            spans = self._spans(today + timedelta(days=offset))
            openings = [max(start, moment) for start, end in spans if max(start, moment) < end]
            if openings:
                return min(openings)
        raise AssertionError("opening hours come each week")

    def _spans(self, day: date) -> Iterator[tuple[float, float]]:
        for days, clock, length in self.open:
            if day.weekday() in days:
                start = datetime.combine(day, clock)
                yield self._first(start), self._last(start + length)

    def _first(self, clock: datetime) -> float:
        """When the zone's clocks show this for the first time. Where they are put forward over it,
        as much later as they would have shown it."""
        return clock.replace(tzinfo=self.zone).timestamp()

    def _last(self, clock: datetime) -> float:
        """The same for the last time."""
        again = clock.replace(tzinfo=self.zone, fold=1).timestamp()
        return max(self._first(clock), again)
