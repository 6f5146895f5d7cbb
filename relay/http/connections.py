"""A server's connections: how many, how long, and an answer for what is not HTTP.

aiohttp bounds the headers of a request in bytes but not in time, keeps an idle connection for an
hour, and has no bound to their number. Its parts are documented in
https://docs.aiohttp.org/en/stable/web_lowlevel.html
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from relay.errors import Overloaded

OTHER_FILES = 64
"""File descriptors that a receiver needs besides its connections, and some to spare."""


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The bounds of connections; times in seconds."""

    header_timeout: float = 10
    keep_alive: float = 75
    most: int = 4_096
    """Connections at a time."""


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""What answers a request."""


class Answering(Protocol):
    """Answers clients that send no valid request."""

    def not_http(self, request: web.BaseRequest, status: int) -> web.Response:
        """Answer what aiohttp could not read."""

    def turn_away(self, remote: str, status: int, reason: str) -> bytes:
        """Return the whole answer to a client whose request was never read."""


class Server(web.Server):
    """aiohttp's server, with bounds."""

    def __init__(
        self, receiver: Answering, bounds: ConnectionBounds, handle: Handle, **options: Any
    ) -> None:
        """``options`` are those of aiohttp's RequestHandler."""
        super().__init__(
            handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=bounds.keep_alive,
            **options,
        )
        self.receiver = receiver
        self.bounds = bounds
        self.open: dict[Connection, None] = {}
        """In the order in which they were opened."""

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def make_room(self, newest: Connection) -> None:
        """Close a connection if there are too many: the oldest of those that can be spared best
        (``Connection.patience``). If all have something to do, that is the newest."""
        if len(self.open) <= self.bounds.most:
            return
        victim, least = newest, _BUSY
        for connection in self.open:
            patience = connection.patience()
            if connection is not newest and patience < least:
                victim, least = connection, patience
                if patience == _NEVER_SPOKE:
                    break
        del self.open[victim]
        if victim is newest:
            victim.turn_away(503, f"all {self.bounds.most} connections are busy")
        else:
            victim.make_way()


_NEVER_SPOKE, _IDLE, _READS_BODY, _BUSY = range(4)


class Connection(web.RequestHandler):
    """aiohttp's connection. A request's headers must be complete in time, and what cannot be read
    is not quoted and leaves no traceback."""

    __slots__ = ("_deadline", "_server")

    def __init__(self, server: Server, *, loop: asyncio.AbstractEventLoop, **options: object):
        super().__init__(server, loop=loop, **options)  # type: ignore[arg-type]
        self._server = server
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._server.open[self] = None
        self._wait_for_headers()
        self._server.make_room(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio.Protocol."""
        self._server.open.pop(self, None)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        requests = self._request_count
        super().data_received(data)
        if self._request_count != requests:
            if self._deadline is not None:
                self._stop_waiting()
        elif self._deadline is None and data and self._is_idle():
            self._wait_for_headers()

    def close(self) -> None:
        """See aiohttp's RequestHandler, which then reads nothing more, not even the rest of a body
        that is on its way. Such a connection is left to ``shutdown``."""
        if self.patience() != _READS_BODY:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109
        """See aiohttp's RequestHandler. A body that is on its way may arrive within ``timeout``."""
        if self.patience() == _READS_BODY:
            self._handler_waiter = self._loop.create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._handler_waiter
            self._handler_waiter = None
        await super().shutdown(timeout)

    def patience(self) -> int:
        """Return what the connection is doing; the lowest number is closed first."""
        if not self._request_count:
            return _NEVER_SPOKE
        if self._is_idle():
            return _IDLE
        request = self._current_request
        return _BUSY if request is None or request.content.is_eof() else _READS_BODY

    def make_way(self) -> None:
        """Close at once. A reader of its body gets the reason, not the end of the body."""
        if self.patience() == _READS_BODY and self._current_request is not None:
            self._current_request.content.set_exception(
                Overloaded("the body was cut off to make room for another connection")
            )
        self.force_close()

    def turn_away(self, status: int, reason: str) -> None:
        """Answer without having read a request, and close."""
        if self.transport is not None:
            remote = self.peername[0] if isinstance(self.peername, tuple) else ""
            self.transport.write(self._server.receiver.turn_away(str(remote), status, reason))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See aiohttp's RequestHandler. Errors of ours do not come here."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        return self._server.receiver.not_http(request, status)

    def _is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _wait_for_headers(self) -> None:
        timeout = self._server.bounds.header_timeout
        self._deadline = self._loop.call_later(timeout, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._is_idle():
            timeout = self._server.bounds.header_timeout
            self.turn_away(408, f"no complete headers after {timeout:g} s")


def most_connections(asked_for: int) -> int:
    """Return ``asked_for``, or the most that the system allows (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = asked_for + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= files:
        return asked_for
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if files > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, files - OTHER_FILES)
