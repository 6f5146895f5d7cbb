"""The chart of deliveries and deploys a minute, as the rectangles of an SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.ledger.pace import Minute
from relay.ledger.records import iso
from relay.ledger.rows import microseconds

STEP = 10
"""Width of a minute."""

HEIGHT = 100

_WIDE, _NARROW = 8, 3
"""Deliveries and deploys differ in width too, not in colour alone."""


class Bar(NamedTuple):
    """One rectangle, and what it stands for."""

    name: str
    x: float
    y: float
    width: float
    height: float
    text: str


class Chart(NamedTuple):
    """What is drawn."""

    bars: list[Bar]
    total: int
    peak: int
    start: str
    text: str
    width: int
    height: int = HEIGHT


def chart(minutes: Sequence[Minute]) -> Chart:
    """Return the chart of these minutes, one after the other."""
    counts = {
        "deliveries": [minute.deliveries for minute in minutes],
        "deploys": [minute.deploys for minute in minutes],
    }
    peak = max((count for each in counts.values() for count in each), default=0)
    bars = []
    for name, width in (("deliveries", _WIDE), ("deploys", _NARROW)):
        for position, (minute, count) in enumerate(zip(minutes, counts[name], strict=True)):
            if not count:
                continue
            height = round(count / peak * (HEIGHT - 4), 1)
            x = position * STEP + (STEP - width) / 2
            text = f"{iso(microseconds(minute.at))[11:16]} {count} {name}"
            bars.append(Bar(name, x, HEIGHT - height, width, height, text))
    totals = {name: sum(each) for name, each in counts.items()}
    both = " and ".join(f"{count} {name}" for name, count in totals.items())
    return Chart(
        bars,
        total=sum(totals.values()),
        peak=peak,
        start=iso(microseconds(minutes[0].at)) if minutes else "",
        text=f"In the last hour {both}, at most {peak} a minute",
        width=STEP * len(minutes),
    )
