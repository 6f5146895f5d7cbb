"""Live updates by server-sent events: one look at the ledger a second serves all who watch.

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

from relay.console.faults import HEADERS
from relay.console.rendering import row
from relay.console.words import said
from relay.errors import Refused, StoreUnavailable
from relay.ledger.changes import Changes
from relay.ledger.ledger import Ledger
from relay.ledger.records import Record, RecordKind

INTERVAL = 1.0
"""Seconds between two looks."""

MOST_CLIENTS = 100
"""Streams at a time."""

MOST_WAITING = 100
"""Messages that a client may be behind; after them it has to load its page again."""

HEARTBEAT = 15
"""Seconds after which a silent stream says that it lives, so that proxies keep it."""

LONGEST = 600
"""Seconds after which a stream ends. The browser asks again, and is let in again or not."""

_MISSED = b"event: missed\ndata: \n\n"
_CHANGED = b"event: changed\ndata: \n\n"
_ALIVE = b": alive\n\n"

_diagnostics = logging.getLogger("relay.console")

Wants = Callable[[RecordKind, Record], bool]


class TooManyStreams(Refused):
    """Too many pages are watched already."""

    status = 503
    code = "too_many_streams"


class Watcher:
    """One open page: which changes concern it, and which have not been sent yet."""

    def __init__(self, wants: Wants, *, rows: bool, watched: Iterable[str] = ()) -> None:
        """``rows``: the page is a list and gets its rows; another page has to reload. ``watched``
        are ids that the page is about, however old."""
        self.wants = wants
        self.rows = rows
        self.watched = frozenset(watched)
        self.is_up_to_date = False
        """Whether it was sent to load the changes between its page and the first look."""
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)

    def tell(self, message: bytes) -> None:
        """Send a message soon. A client that is too far behind has to load its page again."""
        if self._waiting.full():
            while not self._waiting.empty():
                self._waiting.get_nowait()
            message = _MISSED
        self._waiting.put_nowait(message)

    async def next(self) -> bytes:
        """Return the next message, or that the stream lives."""
        try:
            async with asyncio.timeout(HEARTBEAT):
                return await self._waiting.get()
        except TimeoutError:
            return _ALIVE


class Live:
    """Looks at the ledger while pages are watched, and tells each what concerns it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._watchers: set[Watcher] = set()
        self._changes = Changes()
        self._has_watchers = asyncio.Event()
        self.is_closed = False

    @contextmanager
    def watching(self, watcher: Watcher) -> Iterator[None]:
        """Tell it what concerns it. Raises TooManyStreams."""
        if len(self._watchers) >= MOST_CLIENTS:
            raise TooManyStreams(f"{MOST_CLIENTS} pages are watched already")
        self._watchers.add(watcher)
        self._has_watchers.set()
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End all streams."""
        self.is_closed = True
        self._has_watchers.set()
        for watcher in self._watchers:
            watcher.tell(_ALIVE)

    async def run(self) -> None:
        """Look until cancelled or closed."""
        while not self.is_closed:
            if not self._watchers:
                # What happens meanwhile is on the page that the next one loads.
                self._changes = Changes()
                self._has_watchers.clear()
                await self._has_watchers.wait()
            try:
                await self._look()
            except StoreUnavailable as error:
                _diagnostics.warning("no live updates: %s", error)
            await asyncio.sleep(INTERVAL)

    async def _look(self) -> None:
        watched = {id_ for watcher in self._watchers for id_ in watcher.watched}
        changes = self._changes
        changed = await self._ledger.read(lambda reader: changes.read(reader, watched))
        for kind, records in changed.records.items():
            self._tell(kind, records, is_gap=changed.is_gap)
        for watcher in self._watchers:
            # Changes between the making of a page and this first look were not sent to it.
            if not watcher.is_up_to_date:
                watcher.is_up_to_date = True
                watcher.tell(_MISSED)

    def _tell(self, kind: RecordKind, records: Iterable[Record], *, is_gap: bool) -> None:
        changed = list(records)
        rows = {record.id: _row(kind, record) for record in changed}
        for watcher in tuple(self._watchers):
            relevant = [record for record in changed if watcher.wants(kind, record)]
            if not relevant:
                continue
            if not watcher.rows:
                watcher.tell(_CHANGED)
            elif is_gap:
                watcher.tell(_MISSED)
            else:
                for record in relevant:
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


def _row(kind: RecordKind, record: Record) -> bytes:
    message: Any = {"id": f"row-{record.id}", "html": row(kind, record), "text": said(kind, record)}
    # One line of JSON: a line's end within a text would end the event.
    return b"event: row\ndata: " + orjson.dumps(message) + b"\n\n"
