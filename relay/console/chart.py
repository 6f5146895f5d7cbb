"""The chart of deliveries and deploys a minute, as the rectangles of an SVG. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from relay.reading import iso

MINUTES = 60
WIDTH, HEIGHT = 600, 100
_STEP = WIDTH // MINUTES
_WIDE, _NARROW = 8, 3
"""Deliveries and deploys differ in width too, not in colour alone."""


class Bar(NamedTuple):
    name: str
    x: float
    y: float
    width: float
    height: float
    text: str


class Chart(NamedTuple):
    """What is drawn. ``unseen`` is the width on the left that nobody looked at."""

    bars: list[Bar]
    total: int
    peak: int
    start: str
    unseen: float
    text: str
    width: int = WIDTH
    height: int = HEIGHT


def chart(created: Mapping[str, Iterable[float]], now: float, seen_since: float) -> Chart:
    """``created`` has the times in seconds since the Unix epoch for ``deliveries`` and ``deploys``;
    before ``seen_since`` there may be others."""
    end = int(now // 60) + 1
    first = end - MINUTES
    counts = {
        name: Counter(minute for at in times if first <= (minute := int(at // 60)) < end)
        for name, times in created.items()
    }
    peak = max((count for each in counts.values() for count in each.values()), default=0)
    totals = {name: sum(each.values()) for name, each in counts.items()}
    bars = []
    for name, width in (("deliveries", _WIDE), ("deploys", _NARROW)):
        for minute, count in sorted(counts.get(name, Counter[int]()).items()):
            height = round(count / peak * (HEIGHT - 4), 1)
            x = (minute - first) * _STEP + (_STEP - width) / 2
            text = f"{iso(minute * 60)[11:16]} {count} {name}"
            bars.append(Bar(name, x, HEIGHT - height, width, height, text))
    unseen = max(0.0, min(float(WIDTH), (seen_since / 60 - first) * _STEP))
    told = " and ".join(f"{count} {name}" for name, count in totals.items())
    text = f"In the last hour {told}, at most {peak} a minute"
    return Chart(bars, sum(totals.values()), peak, iso(first * 60), round(unseen, 1), text)
