"""Finds deliveries and deploys among RQ's jobs.

No place of RQ's is in the order in which its jobs were made: they are in that of their turn, or of
their end. So all places are looked through first for what may be looked for, cheaply; then that is
looked at closely, the newest first, until there is enough or the time is over.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from relay.briefs import read_briefs, read_statuses
from relay.filtering import Filter, is_described, is_event_wanted
from relay.looking import Looking, Page
from relay.places import places
from relay.reading import iso, read_task
from relay.records import JOB_PREFIX, STRIPPED_FIELD
from relay.statuses import Kind

SECONDS = 1.5
"""How long whoever waits for a page should wait for a search."""

MOST_KEPT = 100_000
"""Jobs that are looked at closely in one search, at most, and remembered until then: 120 bytes
each."""

CLOSE_PAGE = 500
"""Jobs looked at closely in one script call, at most."""

STATUSES_PAGE, EVENTS_PAGE = 100, 20
"""Jobs whose status, or whose event too, is read in one round trip; an event may have a
mebibyte."""

_LAST = 253_402_300_799
"""The last second of the year 9999, in seconds since the Unix epoch."""


class Found(NamedTuple):
    """Ids, the newest first. ``more``: there are others, or some were not looked at."""

    ids: Sequence[str]
    more: bool
    complete: bool
    """Whether all that there is was looked at, or as much of it as was asked for."""
    next: str
    """Where those that come further down begin; see ``Filter.before``."""
    back_to: str = ""
    """Where time or memory did not suffice for all: what was created before this, a time as RQ
    writes it, was not looked at. ``next`` goes on there."""


class Newest:
    """The newest places of all that are added, so many at most. Pure."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: list[str] = []
        self.floor = ""
        """What is not newer than this place is not among them."""

    def add(self, found: list[str]) -> None:
        # To sort what is in order piece by piece takes little more time than to look at it.
        found.sort(reverse=True)
        self._places += found
        if len(self._places) >= 2 * self._most:
            self.settle()

    def settle(self) -> list[str]:
        """They, the newest first, each once."""
        self._places.sort(reverse=True)
        self._places = list(dict.fromkeys(self._places))
        if len(self._places) > self._most:
            del self._places[self._most :]
            self.floor = self._places[-1]
        return self._places


async def find(
    redis: Redis,
    queue: str,
    kind: Kind,
    wanted: Filter,
    limit: int,
    *,
    most: int | None,
    seconds: float | None,
) -> Found:
    """The newest ``limit`` of what is looked for, exactly: pages of a long list leave no gap.

    In one place so many jobs are looked at, at ``most``, or ``MOST_LOOKED_AT`` of relay/looking.py.
    After ``seconds`` no more of them are looked at closely.
    Raises redis.exceptions.RedisError.
    """
    ends_at = time.monotonic() + seconds if seconds is not None else None
    is_close = wanted.reads_event or bool(wanted.statuses)
    # One more than asked for tells that there are more.
    newest = Newest(MOST_KEPT if is_close else limit + 1)
    looking = Looking(redis, kind, wanted, most=most)
    half = time.monotonic() + seconds / 2 if seconds is not None else None
    complete = True
    since = iso(min(max(wanted.since, 0), _LAST)) if wanted.since else ""
    for place in await places(redis, queue, kind, wanted.statuses):
        looking.since = max(since, _time(newest.floor))
        async for page in looking.through(place):
            complete &= page.is_whole
            newest.add(_described(page, wanted))
            looking.since = max(since, _time(newest.floor))
            looking.closely = half is None or time.monotonic() < half
    likely = newest.settle()
    found, looked_at = list(likely), likely[-1] if likely else ""
    if is_close:
        found = []
        async for part, reached, is_whole in _closely(redis, kind, wanted, looking, likely):
            found, looked_at = found + list(part), reached
            complete &= is_whole
            if len(found) > limit or (ends_at is not None and time.monotonic() > ends_at):
                break
    if len(found) > limit:
        return Found(_ids(found[:limit]), True, complete, found[limit - 1])
    if likely and (looked_at != likely[-1] or newest.floor):
        return Found(_ids(found), True, False, looked_at, back_to=_time(looked_at))
    return Found(_ids(found), not complete, complete, "")


def _described(page: Page, wanted: Filter) -> list[str]:
    """The places of those that are wanted as far as that was told of them."""
    return [
        place
        for place, _, description in (told.partition("\n") for told in page.likely)
        if (not wanted.before or place < wanted.before) and is_described(description, wanted)
    ]


async def _closely(
    redis: Redis, kind: Kind, wanted: Filter, looking: Looking, likely: Sequence[str]
) -> AsyncIterator[tuple[Sequence[str], str, bool]]:
    """Those of them that are looked for, piece by piece, up to which all were looked at, and
    whether enough is kept of those to tell."""
    size = EVENTS_PAGE if wanted.reads_event else STATUSES_PAGE
    start = 0
    while start < len(likely):
        here = likely[start : start + CLOSE_PAGE]
        chosen = await looking.at(_ids(here))
        for first in range(0, len(chosen.likely), size):
            part = [here[index] for index in chosen.likely[first : first + size]]
            yield await _wanted(redis, kind, wanted, part), part[-1], chosen.is_whole
        yield (), here[chosen.looked_at - 1], chosen.is_whole
        start += chosen.looked_at


async def _wanted(redis: Redis, kind: Kind, wanted: Filter, part: Sequence[str]) -> Sequence[str]:
    if wanted.reads_event:
        async with redis.pipeline(transaction=False) as pipe:
            for id_ in _ids(part):
                pipe.hmget(JOB_PREFIX + id_, ["data", STRIPPED_FIELD])
            answers: list[Any] = await pipe.execute()
        part = [
            place
            for place, (data, stripped) in zip(part, answers, strict=True)
            if is_event_wanted(read_task(data, stripped), wanted)
        ]
    if wanted.statuses:
        briefs = await read_briefs(redis, _ids(part))
        statuses = await read_statuses(redis, kind, briefs)
        part = [
            place
            for place, id_ in zip(part, _ids(part), strict=True)
            if statuses.get(id_) in wanted.statuses
        ]
    return part


def _ids(found: Iterable[str]) -> list[str]:
    return [place.rpartition(" ")[2] for place in found]


def _time(place: str) -> str:
    return place.partition(" ")[0]
