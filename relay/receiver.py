"""The HTTP side: reads a webhook, has its dialect verify and parse it, and answers the sender.

``POST /hooks/{source}``, ``GET /healthz``, ``GET /readyz``. Every answer is a small JSON object;
errors become answers in one place, ``Receiver.handle``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Any

import orjson
from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from config.networks import Address, is_within
from relay import audit
from relay.answer import Answer, final_answer
from relay.audit import delivery_fields
from relay.clients import client_address
from relay.connections import Bounds, Server
from relay.errors import (
    AuditUnavailable,
    BodyBroken,
    BodyTooLarge,
    BodyTooSlow,
    ExpectationFailed,
    MethodNotAllowed,
    NotFound,
    NotFromHere,
    Overloaded,
    Rejected,
    StoreUnavailable,
    TooManyRequests,
    UnknownSource,
    UnsupportedMediaType,
)
from relay.events.event import Delivery, Ignored
from relay.identity import delivery_id
from relay.intake import Intake
from relay.limits import ByteBudget, TokenBucket
from relay.payloads_kept import PayloadKeeper
from relay.providers.dialect import Dialect
from relay.routing import Router
from relay.tracing import begin

MEDIA_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded"})

FORWARDED_FOR = "X-Forwarded-For"

HOOKS = "/hooks/"
"""The name of the source follows."""

RETRY_AFTER = 30
"""Seconds after which a sender should try again when nothing can be stored."""

_diagnostics = logging.getLogger("relay.receiver")


@dataclass(frozen=True, slots=True)
class Sender:
    """One source of relay.yaml, ready to be listened to."""

    dialect: Dialect
    speaks_for: Callable[[str], bool]
    """Whether the source may send events of a repository."""
    networks: Sequence[IPv4Network | IPv6Network] = ()
    """Where it sends from; empty for anywhere."""
    rate: TokenBucket | None = None
    """How much it may send."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """What answers requests, and what it works with.

    ``handle`` is meant for aiohttp's low-level server: with a handful of paths, an application's
    router, middlewares and match info would cost more than reading a small webhook does.
    https://docs.aiohttp.org/en/stable/web_lowlevel.html
    """

    senders: Mapping[str, Sender]
    router: Router
    intake: Intake
    max_body: int
    body_timeout: float
    bodies: ByteBudget
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()
    bounds: Bounds = field(default_factory=Bounds)
    payloads: PayloadKeeper | None = None
    """Keeps payloads for people; None where none are kept."""
    config: str = ""
    """Version of the relay.yaml that senders and routes come from."""
    log: FilteringBoundLogger = field(default_factory=audit.bound)

    def server(self, current: Callable[[], Receiver] | None = None) -> web.Server:
        """An aiohttp server of it, for a runner. ``current`` says who answers a request instead,
        where relay.yaml has been read again."""
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

    async def receive(self, request: web.BaseRequest, source: str) -> web.Response:
        """One webhook, from its bytes to the answer."""
        sender = self.senders.get(source)
        if sender is None:
            raise UnknownSource("no source of this name in relay.yaml")
        if sender.networks:
            self._check_network(request, sender)
        body = await self._read(request, sender.dialect)
        # From here to the end of parsing nothing else runs; the budget counts every body there is.
        now = time.time()
        headers = request.headers
        fingerprint = sender.dialect.verify(headers, body, now)

        known_as = delivery_id(source, sender.dialect.delivery_id(headers), fingerprint)
        fields: Mapping[str, Any] = {"delivery": known_as}
        try:
            if sender.rate is not None:
                _keep_rate(sender.rate)
            event = sender.dialect.parse(headers, body, self.router.reads_files)
            if isinstance(event, Ignored):
                # It may quote a header, which no signature covers and which need not be UTF-8.
                reason = event.reason.encode(errors="replace").decode()
                return self._ignored(reason, {"delivery": known_as, "source": source})
            span = begin("intake")
            delivery = Delivery(
                id=known_as,
                source=source,
                received_at=now,
                event=event,
                config=self.config,
                trace=span.trace,
            )
            fields = delivery_fields(delivery)
            self.log.info("delivery.received", bytes=len(body), **fields)
            reason = self._unwanted(sender, delivery)
            if reason:
                return self._ignored(reason, fields)
            held = self.payloads.hold(request.content_type, body) if self.payloads else None
            del body
            try:
                verdict, first = await self.intake.store(delivery, fingerprint, fields)
                if held is not None and verdict in ("queued", "requeued"):
                    held.keep(first)
            finally:
                if held is not None:
                    held.release()
            span.end(outcome=verdict, **fields)
        except (Rejected, StoreUnavailable) as error:
            error.about = fields
            raise
        if verdict == "duplicate":
            return Answer(200, status="duplicate", delivery=first)
        status = "spooled" if verdict == "spooled" else "queued"
        return Answer(202, status=status, delivery=first)

    def not_http(self, request: web.BaseRequest, status: int) -> web.Response:
        """Answer what aiohttp could not read, and quote nothing of it."""
        self._audit_rejection(request, "", status, "not an HTTP request that can be read")
        response = _answer(status, status="rejected", error="not an HTTP request")
        response.force_close()
        return response

    def turn_away(self, remote: str, status: int, reason: str) -> bytes:
        """Answer somebody whose request was never read."""
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

    def _ignored(self, reason: str, fields: Mapping[str, Any]) -> web.Response:
        """Nothing will be deployed: the audit has that before the sender does."""
        self.log.info("delivery.ignored", reason=reason, **fields)
        audit.flush()
        return Answer(200, status="ignored", delivery=fields["delivery"], reason=reason)

    async def readyz(self) -> web.Response:
        """Whether a delivery could be stored and routed now, and what is in the way if not.

        Degraded are receivers that store deliveries in the spool.
        """
        redis, spool, accepts = await self.intake.readiness()
        routes = "ok" if len(self.router) else "relay.yaml has no routes"
        written = _audit_taken()
        if not accepts or routes != "ok" or written != "ok":
            status = "not ready"
        else:
            status = "ready" if redis == "ok" and spool != "in use" else "degraded"
        return _answer(
            503 if status == "not ready" else 200,
            status=status,
            redis=redis,
            spool=spool,
            routes=routes,
            audit=written,
        )

    def _check_network(self, request: web.BaseRequest, sender: Sender) -> None:
        address = self._client(request)
        if address is None:
            raise NotFromHere(
                "the address of the sender is unknown: X-Forwarded-For has no address"
            )
        if not is_within(address, sender.networks):
            raise NotFromHere(f"{address} is in none of the networks of this source")

    def _client(self, request: web.BaseRequest) -> Address | None:
        headers = request.headers
        # What was no HTTP has a plain dictionary in place of headers.
        forwarded = headers.getall(FORWARDED_FOR) if FORWARDED_FOR in headers else ()
        return client_address(request.remote or "", forwarded, self.trusted_proxies)

    async def _read(self, request: web.BaseRequest, dialect: Dialect) -> bytes:
        headers = request.headers
        if request.content_type not in MEDIA_TYPES:
            raise UnsupportedMediaType(f"content type {request.content_type!r}")
        if headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
            raise UnsupportedMediaType("compressed body")
        announced = request.content_length or 0
        if announced > self.max_body:
            raise BodyTooLarge(f"{announced} bytes announced")
        content = request.content
        if content.is_eof():
            body = content.read_nowait()
            if len(body) > self.max_body:
                raise BodyTooLarge(f"more than {self.max_body} bytes")
            return body
        dialect.require(headers)
        if not self.bodies.fits(announced):
            raise Overloaded(_no_room(self.bodies))
        if hdrs.EXPECT in headers:
            await _go_on(request)
        parts: list[bytes] = []
        size = 0
        share = self.bodies.share()
        try:
            async with asyncio.timeout(self.body_timeout):
                while part := await content.readany():
                    parts.append(part)
                    size += len(part)
                    if size > self.max_body:
                        raise BodyTooLarge(f"more than {self.max_body} bytes")
                    if not share.grow(size):
                        raise Overloaded(_no_room(self.bodies))
        except TimeoutError:
            raise BodyTooSlow(f"not complete after {self.body_timeout:g} s") from None
        except (web.RequestPayloadError, ConnectionError):
            raise BodyBroken("the body ended early") from None
        finally:
            share.release()
        return b"".join(parts)

    def _audit_rejection(
        self,
        request: web.BaseRequest,
        source: str,
        status: int,
        reason: str,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Say who was refused and why. What has not been verified is cut short."""
        address = self._client(request)
        self.log.warning(
            "delivery.rejected",
            **{"source": _unverified(source), **about},
            status=status,
            reason=reason,
            remote=request.remote if address is None else str(address),
            user_agent=_unverified(request.headers.get(hdrs.USER_AGENT, "")),
        )

    def _unwanted(self, sender: Sender, delivery: Delivery) -> str:
        """Why nothing will be deployed, or an empty string."""
        event = delivery.event
        if not sender.speaks_for(event.repo):
            return f"source {delivery.source} may not speak for {event.repo}"
        if self.router.wants(event, delivery.source):
            return ""
        decisions = self.router.candidates(event, delivery.source)
        if not decisions:
            return f"no route for repository {event.repo}"
        return "; ".join(f"{decision.route.name}: {decision.reason}" for decision in decisions[:5])


def _keep_rate(rate: TokenBucket) -> None:
    """Only what was verified counts, or anybody could use up what a source may send."""
    seconds = math.ceil(rate.take(time.monotonic()))
    if seconds:
        raise TooManyRequests("the source sends more than its rate", seconds)


def _audit_taken() -> str:
    try:
        audit.flush()
    except AuditUnavailable:
        # Where the file is, is nobody's business who may ask here.
        return "it takes no lines"
    return "ok"


def _no_room(bodies: ByteBudget) -> str:
    return f"the bodies that are being read take {bodies.held} of {bodies.limit} bytes"


async def _go_on(request: web.BaseRequest) -> None:
    """Tell a sender that asked first to send the body (RFC 9110, section 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        raise ExpectationFailed("the request expects something unknown")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # This was no part of the answer, which has a length of its own.
    request.writer.output_size = 0


def _unverified(text: str, limit: int = 80) -> str:
    cut = text[:limit]
    return cut if cut.isascii() and cut.isprintable() else ascii(cut)


def _answer(code: int, /, **body: str) -> web.Response:
    return web.Response(status=code, body=orjson.dumps(body), content_type="application/json")
