"""The console's connections, bounded as the receiver's are."""

from __future__ import annotations

import logging

import msgspec
from aiohttp import web

from config.settings import Settings
from relay.console.faults import ErrorAnswer, Problem
from relay.http.connections import ConnectionBounds, Server
from relay.http.responses import final_answer

MOST_CONNECTIONS = 512
"""At a time, pages that are kept up to date included."""

MOST_URL = 65_536
"""Bytes of a request's first line; what the filters allow fits in."""

GRACE = 5
"""Seconds that requests under way get to finish."""


class Runner(web.AppRunner):
    """Listens, once it is set up and given a socket."""

    def __init__(self, app: web.Application, settings: Settings) -> None:
        super().__init__(app, shutdown_timeout=min(GRACE, settings.shutdown_grace))
        self._bounds = ConnectionBounds(
            settings.header_timeout, settings.keep_alive, MOST_CONNECTIONS
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = Server(
            _Unread(),
            self._bounds,
            made.request_handler,
            # Of a request that it cannot read aiohttp logs the line, which may hold a token.
            logger=logging.Logger("relay.console.connections", logging.CRITICAL),
            max_line_size=MOST_URL,
        )
        server.request_factory = made.request_factory
        return server


class _Unread:
    """Answers clients that send no request."""

    def not_http(self, _: web.BaseRequest, status: int) -> web.Response:
        """See relay.http.connections.Answering."""
        error = ErrorAnswer(Problem("bad_request", "not an HTTP request that can be read"))
        response = web.Response(
            body=msgspec.json.encode(error), status=status, content_type="application/json"
        )
        response.force_close()
        return response

    def turn_away(self, _: str, status: int, reason: str) -> bytes:
        """See relay.http.connections.Answering."""
        code = "too_busy" if status == 503 else "headers_too_slow"
        return final_answer(status, error={"code": code, "message": reason})
