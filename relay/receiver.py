"""The HTTP side: reads a webhook, has its dialect verify and parse it, and answers the sender.

``POST /hooks/{source}``, ``GET /healthz``, ``GET /readyz``. Every answer is a small JSON object;
errors become answers in one place, ``Receiver.handle``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson
from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from relay import audit
from relay.answer import Answer
from relay.audit import delivery_fields
from relay.errors import (
    BodyBroken,
    BodyTooLarge,
    BodyTooSlow,
    ExpectationFailed,
    Rejected,
    StoreUnavailable,
    UnknownSource,
    UnsupportedMediaType,
)
from relay.events import Delivery, Ignored
from relay.identity import delivery_id
from relay.intake import Intake
from relay.providers.dialect import Dialect
from relay.routing import Router

MEDIA_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded"})

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
    log: FilteringBoundLogger = field(default_factory=audit.bound)

    def server(self) -> web.Server:
        """An aiohttp server of it, for a runner."""
        return web.Server(self.handle, access_log=None, auto_decompress=False)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer a request. The one place where an error becomes an HTTP answer."""
        path = request.path
        source = path.removeprefix(HOOKS) if path.startswith(HOOKS) else ""
        try:
            if source and "/" not in source:
                if request.method != hdrs.METH_POST:
                    return _not_allowed("POST")
                return await self.receive(request, source)
            if path in ("/healthz", "/readyz"):
                if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
                    return _not_allowed("GET, HEAD")
                return await self.readyz() if path == "/readyz" else _answer(200, status="ok")
            return _answer(404, status="rejected", error="not found")
        except Rejected as error:
            self._audit_rejection(request, source, error.status, error.reason)
            response = _answer(error.status, status="rejected", error=error.answer)
            if error.status in (BodyTooLarge.status, BodyTooSlow.status, BodyBroken.status):
                response.force_close()
            return response
        except StoreUnavailable as error:
            self._audit_rejection(request, source, 503, str(error))
            response = _answer(503, status="unavailable", error="try again later")
            response.headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER)
            return response
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            _diagnostics.exception("request failed")
            self._audit_rejection(request, source, 500, "internal error, see the diagnostics")
            return _answer(500, status="error", error="internal error")

    async def receive(self, request: web.BaseRequest, source: str) -> web.Response:
        """One webhook, from its bytes to the answer."""
        sender = self.senders.get(source)
        if sender is None:
            raise UnknownSource("no source of this name in relay.yaml")
        body = await self._read(request)
        now = time.time()
        headers = request.headers
        fingerprint = sender.dialect.verify(headers, body, now)

        known_as = delivery_id(source, sender.dialect.delivery_id(headers), fingerprint)
        event = sender.dialect.parse(headers, body, self.router.reads_files)
        if isinstance(event, Ignored):
            # It may quote a header, which no signature covers and which need not be UTF-8.
            reason = event.reason.encode(errors="replace").decode()
            self.log.info("delivery.ignored", delivery=known_as, source=source, reason=reason)
            return Answer(200, status="ignored", delivery=known_as, reason=reason)

        delivery = Delivery(id=known_as, source=source, received_at=now, event=event)
        fields = delivery_fields(delivery)
        self.log.info("delivery.received", bytes=len(body), **fields)
        reason = self._unwanted(sender, delivery)
        if reason:
            self.log.info("delivery.ignored", reason=reason, **fields)
            return Answer(200, status="ignored", delivery=known_as, reason=reason)

        verdict, first = await self.intake.store(delivery, fingerprint, fields)
        if verdict == "duplicate":
            return Answer(200, status="duplicate", delivery=first)
        return Answer(202, status="queued", delivery=first)

    async def readyz(self) -> web.Response:
        """Whether a delivery could be stored and routed now, and what is in the way if not."""
        redis = "ok"
        try:
            await self.intake.ping()
        except StoreUnavailable as error:
            redis = str(error)
        routes = "ok" if len(self.router) else "relay.yaml has no routes"
        ready = redis == routes == "ok"
        return _answer(
            200 if ready else 503,
            status="ready" if ready else "not ready",
            redis=redis,
            routes=routes,
        )

    async def _read(self, request: web.BaseRequest) -> bytes:
        headers = request.headers
        if request.content_type not in MEDIA_TYPES:
            raise UnsupportedMediaType(f"content type {request.content_type!r}")
        if headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
            raise UnsupportedMediaType("compressed body")
        if request.content_length is not None and request.content_length > self.max_body:
            raise BodyTooLarge(f"{request.content_length} bytes announced")
        content = request.content
        if content.is_eof():
            return self._bounded(content.read_nowait())
        if hdrs.EXPECT in headers:
            await _go_on(request)
        parts: list[bytes] = []
        left = self.max_body
        try:
            async with asyncio.timeout(self.body_timeout):
                while left >= 0 and (part := await content.readany()):
                    parts.append(part)
                    left -= len(part)
        except TimeoutError:
            raise BodyTooSlow(f"not complete after {self.body_timeout:g} s") from None
        except (web.RequestPayloadError, ConnectionError):
            raise BodyBroken("the body ended early") from None
        return self._bounded(b"".join(parts))

    def _bounded(self, body: bytes) -> bytes:
        if len(body) > self.max_body:
            raise BodyTooLarge(f"more than {self.max_body} bytes")
        return body

    def _audit_rejection(
        self, request: web.BaseRequest, source: str, status: int, reason: str
    ) -> None:
        """Say who was refused and why; nothing here has been verified, so all is cut short."""
        self.log.warning(
            "delivery.rejected",
            source=_unverified(source),
            status=status,
            reason=reason,
            remote=request.remote,
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


def _not_allowed(methods: str) -> web.Response:
    response = _answer(405, status="rejected", error="method not allowed")
    response.headers[hdrs.ALLOW] = methods
    return response
