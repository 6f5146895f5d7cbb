"""What the overview's page shows, out of relay/ledger/overview.py; one look serves all who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from relay.console.chart import Chart, chart
from relay.console.context import Context
from relay.console.words import CHECK_PLATFORM, PLURALS
from relay.ledger.lists import MOST_COUNTED, Count
from relay.ledger.overview import Overview, TargetSeen, read_overview
from relay.ledger.pace import Pace, success_rate
from relay.ledger.records import Record, RecordKind
from relay.ledger_start import ledger_troubles

FRESH = 2
"""Seconds for which one look serves."""

SHOWN = 8
"""Of what needs attention, so many are shown each by itself."""


class Figure(NamedTuple):
    """One number of this moment."""

    name: str
    value: str
    text: str = ""


class TargetView(NamedTuple):
    """How a target stands, with the word for it: ready, open (its circuit breaker), paused or
    waiting."""

    name: str
    word: str
    state: str
    calling: int
    waiting: str


class Group(NamedTuple):
    """Deploys that need attention for one reason."""

    status: str
    number: str
    what: str
    text: str
    href: str


class Attention(NamedTuple):
    """What needs attention."""

    targets: Sequence[TargetView]
    groups: Sequence[Group]
    records: Sequence[tuple[RecordKind, Record]]

    def __bool__(self) -> bool:
        return bool(self.targets or self.groups)


class View(NamedTuple):
    """The whole of it."""

    troubles: Sequence[str]
    """What is not as it should be with the ledger, in sentences without their end."""
    attention: Attention
    figures: Sequence[Figure]
    chart: Chart
    targets: Sequence[TargetView]


class Overviews:
    """Makes a view when one is asked for, and keeps it for a moment."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pace = Pace()
        self._made: tuple[float, View] | None = None
        self._making = asyncio.Lock()

    def forget(self) -> None:
        """Look anew next time, because an operator acted."""
        self._made = None

    async def now(self) -> View:
        """Return the view of this moment. Raises LedgerUnavailable."""
        async with self._making:
            if self._made is not None and time.monotonic() - self._made[0] < FRESH:
                return self._made[1]
            targets = self._context.plan().config.targets
            workers = await self._context.workers.read()
            overview = await self._context.ledger.read(
                lambda reader: read_overview(reader, targets, workers, self._pace)
            )
            await self._context.ledger.refresh()
            made = view(overview, ledger_troubles(self._context.ledger))
            self._made = time.monotonic(), made
            return made


def view(overview: Overview, troubles: Sequence[str] = ()) -> View:
    """Return what the page shows of it. ``troubles`` are those of the ledger."""
    targets = [_target(target) for target in overview.targets]
    records: list[tuple[RecordKind, Record]] = [
        ("deploy", record) for record in (*overview.troubled, *overview.asking)
    ]
    records.sort(key=lambda each: each[1].created_at, reverse=True)
    stopped = [target for target in targets if target.word in ("open", "paused")]
    attention = Attention(stopped, groups(overview), records[:SHOWN])
    return View(troubles, attention, figures(overview), chart(overview.minutes), targets)


def groups(overview: Overview) -> list[Group]:
    """Return what needs attention, the worst first."""
    uncertain = {"attention": "yes", "status": "uncertain"}
    failed = {"attention": "yes", "status": "failed"}
    numbers = (
        (overview.uncertain, "uncertain", "uncertain", CHECK_PLATFORM, uncertain),
        (overview.failed, "failed", "failed", "Not called again without a replay.", failed),
        (
            overview.approval,
            "waiting",
            "waiting for approval",
            "An operator has to approve or cancel.",
            {"status": "waiting"},
        ),
    )
    return [
        Group(
            status,
            str(_counted(number)),
            f"{'deploy' if number == 1 else PLURALS['deploy']} {words}",
            text,
            f"/deploys?{urlencode(search)}",
        )
        for number, status, words, text, search in numbers
        if number
    ]


def _counted(number: int) -> Count:
    """Return a number that the ledger counts up to MOST_COUNTED."""
    return Count(number=min(number, MOST_COUNTED), is_more=number > MOST_COUNTED)


def figures(overview: Overview) -> list[Figure]:
    """Return the numbers of this moment."""
    ended = sum(minute.deploys for minute in overview.minutes)
    good = sum(minute.succeeded for minute in overview.minutes)
    rate = success_rate(overview.minutes)
    oldest = "none" if overview.oldest_at is None else age(overview.at - overview.oldest_at)
    return [
        Figure(
            "Deploys that succeeded",
            "none" if rate is None else f"{rate:.0%}",
            "ended in the last hour" if rate is None else f"{good} of {ended} in the last hour",
        ),
        Figure("In the queue", f"{overview.queued:,}", _workers(overview)),
        Figure(
            "Waiting for their time",
            f"{overview.scheduled + overview.limited:,}",
            "or for their target",
        ),
        Figure("Oldest waiting", oldest, "in the queue or for a slot"),
        Figure("Calling", f"{overview.running:,}", "calls under way"),
    ]


def _workers(overview: Overview) -> str:
    if overview.workers is None:
        return "Redis does not answer"
    number = len(overview.workers)
    return "for a worker" if number == 1 else f"for {number or 'no'} workers"


def age(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _target(standing: TargetSeen) -> TargetView:
    word = "ready" if standing.state == "ready" else "waiting"
    if standing.breaker in ("open", "half-open"):
        word = "open"
    word = "paused" if standing.paused else word
    return TargetView(
        standing.name, word, standing.state, standing.calling, f"{standing.waiting:,}"
    )
