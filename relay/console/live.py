"""Live updates by server-sent events: one look at Redis a second serves all who watch.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
from aiohttp import hdrs, web
from redis.exceptions import RedisError

from relay.archive import Archive
from relay.console.faults import HEADERS
from relay.console.rendering import row
from relay.console.words import said
from relay.errors import Refused
from relay.filtering import Filter
from relay.reading import Record
from relay.statuses import ACTIVE, Kind

INTERVAL = 1.0
"""Seconds between two looks."""

WATCHED = 50
"""The newest deliveries, and as many deploys, are watched; and those whose pages are open."""

LOOKED_AT = 1_000
"""Jobs looked at in each place to find the newest."""

MOST_ACTIVE = 200
"""Of those that were among the newest, so many are watched until they have ended."""

MOST_CLIENTS = 100
"""Streams at a time."""

MOST_WAITING = 100
"""Messages that a client may be behind; then it is told to look at all of it again."""

HEARTBEAT = 15
"""Seconds after which a silent stream says that it lives, so that proxies keep it."""

LONGEST = 600
"""Seconds after which a stream ends. The browser asks again, and is let in again or not."""

_KINDS: tuple[Kind, ...] = ("delivery", "deploy")
_MISSED = b"event: missed\ndata: \n\n"
_CHANGED = b"event: changed\ndata: \n\n"
_ALIVE = b": alive\n\n"

_diagnostics = logging.getLogger("relay.console")

Wants = Callable[[Kind, Record], bool]


class TooManyStreams(Refused):
    """So many watch already."""

    status = 503
    code = "too_many_streams"


class Watcher:
    """One open page: what of it is to be told, and what has not been sent yet."""

    def __init__(self, wants: Wants, *, rows: bool, watched: Iterable[str] = ()) -> None:
        """``rows``: the page is a list, whose rows are sent; others are told to load anew.
        ``watched`` are ids that it is about, however old."""
        self.wants = wants
        self.rows = rows
        self.watched = frozenset(watched)
        self.is_up_to_date = False
        """Whether it was told to load what happened between its page and the first look."""
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)

    def tell(self, message: bytes) -> None:
        """Send it soon; of what a slow client has not read, nothing is kept but that."""
        if self._waiting.full():
            while not self._waiting.empty():
                self._waiting.get_nowait()
            message = _MISSED
        self._waiting.put_nowait(message)

    async def next(self) -> bytes:
        try:
            async with asyncio.timeout(HEARTBEAT):
                return await self._waiting.get()
        except TimeoutError:
            return _ALIVE


class Live:
    """Looks at Redis while anybody watches, and tells each what concerns it."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._watchers: set[Watcher] = set()
        self._known: dict[Kind, dict[str, Record]] = {}
        self._wanted = asyncio.Event()
        self.is_closed = False

    @contextmanager
    def watching(self, watcher: Watcher) -> Iterator[None]:
        """Tell it what concerns it. Raises TooManyStreams."""
        if len(self._watchers) >= MOST_CLIENTS:
            raise TooManyStreams(f"{MOST_CLIENTS} pages are watched already")
        self._watchers.add(watcher)
        self._wanted.set()
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End all streams."""
        self.is_closed = True
        for watcher in self._watchers:
            watcher.tell(_ALIVE)

    async def run(self) -> None:
        """Look until cancelled, or closed: a client of Redis may take a cancellation for a failure
        of its connection."""
        while not self.is_closed:
            if not self._watchers:
                # What happens meanwhile is on the page that the next one loads.
                self._known.clear()
                self._wanted.clear()
                await self._wanted.wait()
            try:
                for kind in _KINDS:
                    await self._look(kind)
                self._welcome()
            except (RedisError, OSError) as error:
                _diagnostics.warning("no live updates: Redis: %s", type(error).__name__)
            await asyncio.sleep(INTERVAL)

    def _welcome(self) -> None:
        """What changes from here on is told; what did since a page was made, that page missed."""
        for watcher in self._watchers:
            if not watcher.is_up_to_date:
                watcher.is_up_to_date = True
                watcher.tell(_MISSED)

    async def _look(self, kind: Kind) -> None:
        found = await self._archive.find(kind, Filter(), WATCHED, most=LOOKED_AT)
        known = self._known.get(kind)
        before = known or {}
        active = [id_ for id_, record in before.items() if record.status in ACTIVE]
        open_pages = {id_ for watcher in self._watchers for id_ in watcher.watched}
        ids = dict.fromkeys([*found.ids, *active[:MOST_ACTIVE], *sorted(open_pages)])
        records = {record.id: record for record in await self._archive.read(kind, list(ids))}
        self._known[kind] = records
        if known is None:
            return
        is_gap = bool(before) and len(found.ids) == WATCHED and before.keys().isdisjoint(found.ids)
        # The oldest first, so that each goes on top of the one before.
        changed = [
            record for record in reversed(records.values()) if before.get(record.id) != record
        ]
        if not changed:
            return
        rows = {record.id: _row(kind, record) for record in changed}
        for watcher in tuple(self._watchers):
            wanted = [record for record in changed if watcher.wants(kind, record)]
            if not watcher.rows:
                if wanted:
                    watcher.tell(_CHANGED)
            elif is_gap:
                watcher.tell(_MISSED)
            else:
                for record in wanted:
                    watcher.tell(rows[record.id])


LIVE: web.AppKey[Live] = web.AppKey("live", Live)


async def running(app: web.Application) -> AsyncIterator[None]:
    """Look while the console runs."""
    looking = asyncio.create_task(app[LIVE].run())
    yield
    app[LIVE].close()
    looking.cancel()
    await asyncio.wait({looking})


async def closing(app: web.Application) -> None:
    """End the streams before the console waits for requests under way."""
    app[LIVE].close()


async def stream(request: web.Request, watcher: Watcher) -> web.StreamResponse:
    """Send a watcher what concerns it. Raises TooManyStreams."""
    response = web.StreamResponse(
        headers={**HEADERS, hdrs.CONTENT_TYPE: "text/event-stream", "X-Accel-Buffering": "no"}
    )
    hub, ends_at = request.app[LIVE], time.monotonic() + LONGEST
    with hub.watching(watcher), suppress(ConnectionResetError):
        await response.prepare(request)
        await response.write(_ALIVE)
        while not hub.is_closed and time.monotonic() < ends_at:
            await response.write(await watcher.next())
    return response


def _row(kind: Kind, record: Record) -> bytes:
    told: Any = {"id": f"row-{record.id}", "html": row(kind, record), "text": said(kind, record)}
    # One line of JSON: a line's end within a text would end the event.
    return b"event: row\ndata: " + orjson.dumps(told) + b"\n\n"
