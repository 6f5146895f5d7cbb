"""What the overview's page shows, out of relay/overview.py; one look serves all who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from relay.console.chart import Chart, chart
from relay.console.context import Context
from relay.overview import FIRST, Overview, TargetSeen, read_overview
from relay.pace import success_rate
from relay.reading import Record
from relay.statuses import Kind

FRESH = 2
"""Seconds for which one look serves."""

SHOWN = 8
"""Of what needs attention, so many are shown each by itself."""


class Figure(NamedTuple):
    """One number of this moment."""

    name: str
    value: str
    text: str = ""


class Target(NamedTuple):
    """How a target stands, with the word for it: ready, open (its breaker), paused or waiting."""

    name: str
    word: str
    state: str
    calling: int
    waiting: str


class Group(NamedTuple):
    """So many deploys or deliveries that stand in one way."""

    status: str
    number: int
    what: str
    text: str
    href: str


class Attention(NamedTuple):
    """What a person should look at."""

    targets: Sequence[Target]
    groups: Sequence[Group]
    records: Sequence[tuple[Kind, Record]]

    def __bool__(self) -> bool:
        return bool(self.targets or self.groups)


class View(NamedTuple):
    """The whole of it."""

    attention: Attention
    figures: Sequence[Figure]
    chart: Chart
    targets: Sequence[Target]


class Overviews:
    """Makes a view when one is asked for, and keeps it for a moment."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._made: tuple[float, View] | None = None
        self._making = asyncio.Lock()

    def forget(self) -> None:
        """Look anew next time, because something was done."""
        self._made = None

    async def now(self) -> View:
        """Raises redis.exceptions.RedisError and StoreUnavailable."""
        async with self._making:
            if self._made is not None and time.monotonic() - self._made[0] < FRESH:
                return self._made[1]
            context = self._context
            known = context.plan().config.targets
            seen = await read_overview(
                context.redis, context.settings.queue, lambda: context.powers.targets(known)
            )
            made = view(seen)
            self._made = time.monotonic(), made
            return made


def view(seen: Overview) -> View:
    """What the page shows of it."""
    targets = [_target(target) for target in seen.targets]
    records: list[tuple[Kind, Record]] = [
        ("deploy" if record.target else "delivery", record)
        for record in (*seen.troubled, *seen.asking)
    ]
    records.sort(key=lambda each: each[1].created_at, reverse=True)
    stopped = [target for target in targets if target.word in ("open", "paused")]
    attention = Attention(stopped, groups(seen), records[:SHOWN])
    return View(attention, figures(seen), chart(seen.minutes), targets)


def groups(seen: Overview) -> list[Group]:
    """What needs attention, the worst first."""
    known = (
        (seen.held, "deploy", "held", "sent and not answered: look at the platform, then decide"),
        (seen.failed, "deploy", "failed", "not called again without a replay"),
        (seen.unmatched, "delivery", "failed", "not matched again without a replay"),
        (seen.approval, "deploy", "waiting", "somebody has to say yes or no"),
    )
    return [
        Group(status, number, _what(number, kind, status), text, _search(kind, status))
        for number, kind, status, text in known
        if number
    ]


def _what(number: int, kind: str, status: str) -> str:
    name = {"deploy": "deploys", "delivery": "deliveries"}[kind] if number != 1 else kind
    if status == "waiting":
        return f"{name} waiting for approval"
    return f"{name} {status}" + " to be matched" * (kind == "delivery")


def _search(kind: str, status: str) -> str:
    plural = {"deploy": "deploys", "delivery": "deliveries"}[kind]
    return f"/{plural}?{urlencode({'status': status})}"


def figures(seen: Overview) -> list[Figure]:
    """The numbers of this moment."""
    ended = sum(minute.deploys for minute in seen.minutes)
    good = sum(minute.succeeded for minute in seen.minutes)
    rate = success_rate(seen.minutes)
    oldest = "none" if seen.oldest_at is None else age(seen.at - seen.oldest_at)
    calling = sum(target.calling for target in seen.targets)
    return [
        Figure(
            "Deploys that succeeded",
            "none" if rate is None else f"{rate:.0%}",
            "ended in the last hour" if rate is None else f"{good} of {ended} in the last hour",
        ),
        Figure("In the queue", f"{seen.queued:,}", f"for {_workers(len(seen.workers))}"),
        Figure(
            "Waiting for their time", f"{seen.scheduled + seen.limited:,}", "or for their target"
        ),
        Figure(
            "Oldest waiting",
            oldest,
            f"of the first {FIRST} in the queue"
            if seen.queued > FIRST
            else "in the queue or for a slot",
        ),
        Figure("Running", f"{seen.running:,}", f"{calling:,} hold a slot of a target"),
    ]


def _workers(number: int) -> str:
    return "a worker" if number == 1 else f"{number or 'no'} workers"


def age(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _target(seen: TargetSeen) -> Target:
    word = "ready" if seen.state == "ready" else "waiting"
    if seen.breaker in ("open", "half-open"):
        word = "open"
    waiting = f"{seen.waiting:,}{'+' * seen.more}"
    return Target(seen.name, "paused" if seen.paused else word, seen.state, seen.calling, waiting)
