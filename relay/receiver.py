"""The HTTP side: reads a webhook, has its dialect verify and parse it, and answers the sender.

``POST /hooks/{source}``, ``GET /healthz``, ``GET /readyz``. Every answer is a small JSON object;
errors become answers in one place, ``answer_errors``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import orjson
from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from config.patterns import PatternSet
from relay import audit
from relay.audit import delivery_fields, log
from relay.errors import (
    BodyTooLarge,
    BodyTooSlow,
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

RETRY_AFTER = 30
"""Seconds after which a sender should try again when nothing can be stored."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_diagnostics = logging.getLogger("relay.receiver")


@dataclass(frozen=True, slots=True)
class Sender:
    """One source of relay.yaml, ready to be listened to."""

    dialect: Dialect
    repos: PatternSet


@dataclass(frozen=True, slots=True)
class Receiver:
    """The handlers and what they work with."""

    senders: Mapping[str, Sender]
    router: Router
    intake: Intake
    max_body: int
    body_timeout: float
    log: FilteringBoundLogger = field(default_factory=audit.bound)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[answer_errors], client_max_size=self.max_body)
        app.router.add_post("/hooks/{source}", self.receive)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        return app

    async def receive(self, request: web.Request) -> web.Response:
        """One webhook, from its bytes to the answer."""
        source = request.match_info["source"]
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
            return _answer(200, status="ignored", delivery=known_as, reason=reason)

        delivery = Delivery(id=known_as, source=source, received_at=now, event=event)
        fields = delivery_fields(delivery)
        self.log.info("delivery.received", bytes=len(body), **fields)
        reason = self._unwanted(sender, delivery)
        if reason:
            self.log.info("delivery.ignored", reason=reason, **fields)
            return _answer(200, status="ignored", delivery=known_as, reason=reason)

        verdict, first = await self.intake.store(delivery, fingerprint, fields)
        if verdict == "duplicate":
            return _answer(200, status="duplicate", delivery=first)
        return _answer(202, status="queued", delivery=first)

    async def healthz(self, _: web.Request) -> web.Response:
        """The process is up."""
        return _answer(200, status="ok")

    async def readyz(self, _: web.Request) -> web.Response:
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

    async def _read(self, request: web.Request) -> bytes:
        if request.content_type not in MEDIA_TYPES:
            raise UnsupportedMediaType(f"content type {request.content_type!r}")
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
            raise UnsupportedMediaType("compressed body")
        if request.content_length is not None and request.content_length > self.max_body:
            raise BodyTooLarge(f"{request.content_length} bytes announced")
        content = request.content
        if content.is_eof():
            return self._bounded(content.read_nowait())
        parts: list[bytes] = []
        left = self.max_body
        try:
            async with asyncio.timeout(self.body_timeout):
                while left >= 0 and (part := await content.readany()):
                    parts.append(part)
                    left -= len(part)
        except TimeoutError:
            raise BodyTooSlow(f"not complete after {self.body_timeout:g} s") from None
        return self._bounded(b"".join(parts))

    def _bounded(self, body: bytes) -> bytes:
        if len(body) > self.max_body:
            raise BodyTooLarge(f"more than {self.max_body} bytes")
        return body

    def _unwanted(self, sender: Sender, delivery: Delivery) -> str:
        """Why nothing will be deployed, or an empty string."""
        event = delivery.event
        if not sender.repos.matches(event.repo):
            return f"source {delivery.source} may not speak for {event.repo}"
        if self.router.wants(event, delivery.source):
            return ""
        decisions = self.router.candidates(event, delivery.source)
        if not decisions:
            return f"no route for repository {event.repo}"
        return "; ".join(f"{decision.route.name}: {decision.reason}" for decision in decisions[:5])


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where an error becomes an HTTP answer."""
    try:
        return await handler(request)
    except Rejected as error:
        _audit_rejection(request, error.status, error.reason)
        response = _answer(error.status, status="rejected", error=error.answer)
        if error.status in (BodyTooLarge.status, BodyTooSlow.status):
            response.force_close()
        return response
    except StoreUnavailable as error:
        _audit_rejection(request, 503, str(error))
        response = _answer(503, status="unavailable", error="try again later")
        response.headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER)
        return response
    except web.HTTPException as error:
        response = _answer(error.status, status="rejected", error=error.reason.lower())
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return response
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        _diagnostics.exception("request failed")
        _audit_rejection(request, 500, "internal error, see the diagnostics")
        return _answer(500, status="error", error="internal error")


def _audit_rejection(request: web.Request, status: int, reason: str) -> None:
    """Say who was refused and why; nothing here has been verified, so all of it is cut short."""
    log.warning(
        "delivery.rejected",
        source=_unverified(request.match_info.get("source", "")),
        status=status,
        reason=reason,
        remote=request.remote,
        user_agent=_unverified(request.headers.get(hdrs.USER_AGENT, "")),
    )


def _unverified(text: str, limit: int = 80) -> str:
    cut = text[:limit]
    return cut if cut.isascii() and cut.isprintable() else ascii(cut)


def _answer(code: int, /, **body: str) -> web.Response:
    return web.Response(status=code, body=orjson.dumps(body), content_type="application/json")
