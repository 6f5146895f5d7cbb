"""The HTTP handler: reads a webhook, has its provider verify and parse it, answers the sender.

``POST /hooks/{source}``, ``GET /healthz``, ``GET /readyz``. Every answer is a small JSON object;
errors become answers in one place, ``Receiver.handle``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import orjson
from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from config.networks import is_within
from relay import audit
from relay.errors import (
    MethodNotAllowed,
    NotFound,
    NotFromHere,
    Overloaded,
    Rejected,
    StoreUnavailable,
    TooManyRequests,
    UnknownSource,
)
from relay.events.event import Ignored
from relay.http.body import BodyReader
from relay.http.client_address import Client, ClientAddresses
from relay.http.connections import ConnectionBounds, Server
from relay.http.limits import TokenBucket
from relay.http.responses import final_answer
from relay.receive.arrival import (
    Webhook,
    answer_ignored,
    answer_stored,
    audit_fields,
    new_delivery,
    traced_fields,
)
from relay.receive.intake import Intake
from relay.receive.payload import PayloadPacker
from relay.receive.readiness import Readiness
from relay.receive.refusals import Refusals
from relay.receive.sources import ReadySource
from relay.routing import Router
from relay.tracing import begin

FORWARDED_FOR = "X-Forwarded-For"

HOOKS = "/hooks/"
"""The name of the source follows."""

RETRY_AFTER = 30
"""Seconds after which a sender should try again when nothing can be stored."""

_diagnostics = logging.getLogger("relay.receive")


@dataclass(frozen=True, slots=True)
class Receiver:
    """Answers requests.

    ``handle`` is meant for aiohttp's low-level server: with a handful of paths, an application's
    router, middlewares and match info would cost more than reading a small webhook does.
    https://docs.aiohttp.org/en/stable/web_lowlevel.html
    """

    sources: Mapping[str, ReadySource]
    router: Router
    intake: Intake
    payloads: PayloadPacker
    readiness: Readiness
    refusals: Refusals
    bodies: BodyReader
    clients: ClientAddresses = field(default_factory=ClientAddresses)
    bounds: ConnectionBounds = field(default_factory=ConnectionBounds)
    config: str = ""
    """Version of the relay.yaml that sources and routes come from."""
    log: FilteringBoundLogger = field(default_factory=audit.bound)

    def server(self, current: Callable[[], Receiver] | None = None) -> web.Server:
        """Return an aiohttp server for a runner. ``current`` returns the receiver that answers a
        request; it changes when relay.yaml is read again."""
        # A connection keeps the function it began with; a request keeps the receiver.
        handle = self.handle if current is None else lambda request: current().handle(request)
        return Server(self, self.bounds, handle)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer a request. The one place where an error becomes an HTTP answer."""
        path = request.path
        source = path.removeprefix(HOOKS) if path.startswith(HOOKS) else ""
        try:
            return await self._respond(request, path, source)
        except Rejected as error:
            self._audit_rejection(request, source, error.status, error.reason, error.about)
            response = _answer(error.status, status="rejected", error=error.answer)
            if not request.content.is_eof():
                response.force_close()
            if error.retry_after:
                response.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
            if isinstance(error, MethodNotAllowed):
                response.headers[hdrs.ALLOW] = error.allowed
            return response
        except StoreUnavailable as error:
            self._audit_rejection(request, source, 503, str(error), error.about)
            response = _answer(503, status="unavailable", error="try again later")
            response.headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER)
            return response
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            _diagnostics.exception("request failed")
            self._audit_rejection(request, source, 500, "internal error, see the diagnostics")
            return _answer(500, status="error", error="internal error")

    async def _respond(self, request: web.BaseRequest, path: str, source: str) -> web.Response:
        if source and "/" not in source:
            if request.method != hdrs.METH_POST:
                raise MethodNotAllowed(request.method, "POST")
            return await self.receive(request, source)
        if path in ("/healthz", "/readyz"):
            if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                raise MethodNotAllowed(request.method, "GET, HEAD")
            return await self.readyz() if path == "/readyz" else _answer(200, status="ok")
        raise NotFound(f"no path {_unverified(path)}")

    async def receive(self, request: web.BaseRequest, name: str) -> web.Response:
        """Return the answer to one webhook, once it is stored."""
        source = self.sources.get(name)
        if source is None:
            raise UnknownSource("no source of this name in relay.yaml")
        client = self._client(request)
        if source.networks:
            _check_network(client, source)
        headers = request.headers
        body = await self.bodies.read(request, lambda: source.provider.require(headers))
        with body as content:
            return await self._take(request, source, client, content)

    async def _take(
        self, request: web.BaseRequest, source: ReadySource, client: Client, body: bytes
    ) -> web.Response:
        headers, now = request.headers, time.time()
        fingerprint = source.provider.verify(headers, body, now)
        webhook = Webhook(
            source, client.text, self.config, source.provider.delivery_id(headers), fingerprint, now
        )
        fields: Mapping[str, Any] = {}
        try:
            if source.rate is not None:
                _keep_rate(source.rate)
            event = source.provider.parse(headers, body, self.router.reads_files)
            if isinstance(event, Ignored):
                # It may quote a header, which is not signed and may not be UTF-8.
                reason = event.reason.encode(errors="replace").decode()
                return self._ignore(reason, webhook.fields())
            fields = audit_fields(webhook, event)
            if not source.speaks_for(event.repo):
                return self._ignore(f"source {source.name} may not speak for {event.repo}", fields)
            span = begin("intake")
            payload = await self.payloads.pack(request.content_type, body)
            is_kept = False
            try:
                new = new_delivery(webhook, event, self.router, payload, span.trace)
                stored = await self.intake.store(new, len(body), fields)
                is_kept = stored.verdict != "known"
            finally:
                if not is_kept and payload.codec == "file":
                    self.payloads.discard(payload)
            span.end(outcome=stored.verdict, **traced_fields(fields, stored))
        except (Rejected, StoreUnavailable) as error:
            error.about = fields or webhook.fields()
            raise
        return answer_stored(stored)

    def not_http(self, request: web.BaseRequest, status: int) -> web.Response:
        """Answer a request that aiohttp could not read, without quoting it."""
        self._audit_rejection(request, "", status, "not an HTTP request that can be read")
        response = _answer(status, status="rejected", error="not an HTTP request")
        response.force_close()
        return response

    def turn_away(self, remote: str, status: int, reason: str) -> bytes:
        """Return the answer to a client whose request was never read."""
        self.refusals.add("", status, reason, remote, time.time())
        self.log.warning(
            "delivery.rejected",
            source="",
            status=status,
            reason=reason,
            remote=remote,
            user_agent="",
        )
        if status == Overloaded.status:
            return final_answer(
                status, retry_after=RETRY_AFTER, status="rejected", error="too busy"
            )
        return final_answer(status, status="rejected", error="headers too slow")

    def _ignore(self, reason: str, fields: Mapping[str, Any]) -> web.Response:
        """Answer an ignored webhook. Its only trace is an audit line, which is written first."""
        self.log.info("delivery.ignored", reason=reason, **fields)
        audit.flush()
        return answer_ignored(reason)

    async def readyz(self) -> web.Response:
        """Return whether a delivery could be stored now, and the reasons if not."""
        code, fields = await self.readiness.report(has_routes=len(self.router) > 0)
        return _answer(code, **fields)

    def _client(self, request: web.BaseRequest) -> Client:
        headers = request.headers
        # What was no HTTP has a plain dictionary in place of headers.
        forwarded = headers.getall(FORWARDED_FOR) if FORWARDED_FOR in headers else ()
        return self.clients.client(request.remote or "", forwarded)

    def _audit_rejection(
        self,
        request: web.BaseRequest,
        source: str,
        status: int,
        reason: str,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write the audit line of a refused request. Unverified texts are cut short."""
        remote = self._client(request).text
        self.refusals.add(
            source if source in self.sources else "", status, reason, remote, time.time()
        )
        self.log.warning(
            "delivery.rejected",
            **{"source": _unverified(source), **about},
            status=status,
            reason=reason,
            **{"remote": remote} if "remote" not in about else {},
            user_agent=_unverified(request.headers.get(hdrs.USER_AGENT, "")),
        )


def _check_network(client: Client, source: ReadySource) -> None:
    if client.address is None:
        raise NotFromHere("the address of the sender is unknown: X-Forwarded-For has no address")
    if not is_within(client.address, source.networks):
        raise NotFromHere(f"{client.address} is in none of the networks of this source")


def _keep_rate(rate: TokenBucket) -> None:
    """Count a verified webhook against the rate of its source. Others could use the rate up."""
    seconds = math.ceil(rate.take(time.monotonic()))
    if seconds:
        raise TooManyRequests("the source sends more than its rate", seconds)


def _unverified(text: str, limit: int = 80) -> str:
    cut = text[:limit]
    return cut if cut.isascii() and cut.isprintable() else ascii(cut)


def _answer(code: int, /, **body: str) -> web.Response:
    return web.Response(status=code, body=orjson.dumps(body), content_type="application/json")
