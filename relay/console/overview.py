"""What the overview shows, out of a bounded look at Redis; one look serves all who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from relay.console.chart import MINUTES, Chart, chart
from relay.console.context import Context
from relay.console.glance import Glance, Seen, glance
from relay.overview import Standing
from relay.reading import Record, iso
from relay.statuses import ACTIVE, Kind, Status

FRESH = 2
"""Seconds for which one look serves."""

SHOWN = 8
"""Of what needs attention, so many are shown each by itself."""


class Figure(NamedTuple):
    name: str
    value: str
    text: str = ""


class Target(NamedTuple):
    """How a target stands, with the word for it: ready, open (its breaker), paused or waiting."""

    name: str
    word: str
    state: str
    calling: int
    waiting: int


class Group(NamedTuple):
    """So many deploys or deliveries that stand in one way."""

    status: str
    number: int
    more: bool
    what: str
    text: str
    href: str
    at: str
    """When the newest was created."""


class Attention(NamedTuple):
    """What a person should look at."""

    targets: Sequence[Target]
    groups: Sequence[Group]
    records: Sequence[tuple[Kind, Record]]

    def __bool__(self) -> bool:
        return bool(self.targets or self.groups)


class Overview(NamedTuple):
    """The whole of it."""

    attention: Attention
    figures: Sequence[Figure]
    chart: Chart
    targets: Sequence[Target]


class Overviews:
    """Makes an overview when one is asked for, and keeps it for a moment."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._made: tuple[float, Overview] | None = None
        self._making = asyncio.Lock()

    def forget(self) -> None:
        """Look anew next time, because something was done."""
        self._made = None

    async def now(self) -> Overview:
        """Raises redis.exceptions.RedisError and StoreUnavailable."""
        async with self._making:
            if self._made is not None and time.monotonic() - self._made[0] < FRESH:
                return self._made[1]
            made = await self._make()
            self._made = time.monotonic(), made
            return made

    async def _make(self) -> Overview:
        context = self._context
        known = context.plan().config.targets
        seen, standings = await asyncio.gather(
            glance(context.redis, context.settings.queue),
            asyncio.to_thread(context.powers.targets, known),
        )
        targets = [_target(standing) for standing in standings]
        newest = sorted(
            (job for job in seen.jobs if _group_of(job)), key=lambda job: -job.created_at
        )[:SHOWN]
        kinds: tuple[Kind, ...] = ("deploy", "delivery")
        found = {
            kind: await context.archive.read(kind, [job.id for job in newest if job.kind == kind])
            for kind in kinds
        }
        records = [(kind, record) for kind in kinds for record in found[kind]]
        records.sort(key=lambda each: each[1].created_at, reverse=True)
        attention = Attention(
            [target for target in targets if target.word in ("open", "paused")],
            groups(seen),
            records,
        )
        now = time.time()
        return Overview(attention, figures(seen, targets, now), _chart(seen, now), targets)


_GROUPS: dict[tuple[str, Status], tuple[str, str]] = {
    ("deploy", "held"): ("held", "sent and not answered: look at the platform, then decide"),
    ("deploy", "failed"): ("failed", "not called again without a replay"),
    ("delivery", "failed"): ("failed to be matched", "not matched again without a replay"),
    ("deploy", "waiting"): ("waiting for approval", "somebody has to say yes or no"),
}


def groups(seen: Glance) -> list[Group]:
    """What needs attention, the worst first."""
    told = []
    for (kind, status), (what, text) in _GROUPS.items():
        jobs = [job for job in seen.jobs if _group_of(job) == (kind, status)]
        if not jobs:
            continue
        plural = ("deploy" if kind == "deploy" else "delivery", "deploys", "deliveries")
        name = plural[0] if len(jobs) == 1 else plural[1 if kind == "deploy" else 2]
        told.append(
            Group(
                status,
                len(jobs),
                bool(seen.cut & {"scheduled" if status == "waiting" else "failed"}),
                f"{name} {what}",
                text,
                f"/{plural[1 if kind == 'deploy' else 2]}?{urlencode({'status': status})}",
                iso(max(job.created_at for job in jobs)),
            )
        )
    return told


def figures(seen: Glance, targets: Sequence[Target], now: float) -> list[Figure]:
    """The numbers of this moment."""
    hour = [job for job in seen.jobs if job.kind == "deploy" and job.ended_at > now - 3_600]
    good = sum(job.status == "succeeded" for job in hour)
    bad = sum(job.status in ("failed", "held") for job in hour)
    waiting = [job.created_at for job in seen.jobs if job.status == "waiting" and job.created_at]
    oldest = age(now - min(waiting)) if waiting else "none"
    later = seen.numbers["limited"] + seen.numbers["scheduled"]
    return [
        Figure(
            "Deploys that succeeded",
            f"{good / (good + bad):.0%}" if good + bad else "none",
            f"{good} of {good + bad} in the last hour" if good + bad else "ended in the last hour",
        ),
        Figure("In the queue", f"{seen.numbers['queue']:,}", "for a worker"),
        Figure("Waiting for their time", f"{later:,}", "or for a slot of their target"),
        Figure("Oldest waiting", oldest, _some(seen)),
        Figure("Running", f"{seen.numbers['started']:,}", _calling(targets)),
    ]


def age(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _group_of(job: Seen) -> tuple[str, Status] | None:
    is_other = job.status == "waiting" and not job.waits_for.startswith("approval")
    if is_other or job.is_replayed:
        return None
    return (job.kind, job.status) if (job.kind, job.status) in _GROUPS else None


def _target(standing: Standing) -> Target:
    word = "ready" if standing.state == "ready" else "waiting"
    if standing.breaker in ("open", "half-open"):
        word = "open"
    return Target(
        standing.name,
        "paused" if standing.paused else word,
        standing.state,
        standing.calling,
        standing.waiting,
    )


def _chart(seen: Glance, now: float) -> Chart:
    # What a place was cut at may be older or newer: nothing before the oldest is sure.
    oldest = [job.created_at for job in seen.jobs if job.status not in ACTIVE and job.created_at]
    is_cut = seen.cut & {"finished", "queue"}
    since = min(oldest, default=now) if is_cut else 0
    created = {
        "deliveries": [job.created_at for job in seen.jobs if job.kind == "delivery"],
        "deploys": [job.created_at for job in seen.jobs if job.kind == "deploy"],
    }
    return chart(created, now, max(since, now - (MINUTES + 1) * 60) if is_cut else 0)


def _some(seen: Glance) -> str:
    return "of those looked at" if seen.cut & {"queue", "scheduled", "limited"} else ""


def _calling(targets: Sequence[Target]) -> str:
    return f"{sum(target.calling for target in targets):,} hold a slot of a target"
