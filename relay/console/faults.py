"""The one place where an error of the console becomes an answer, and the headers that all have."""

from __future__ import annotations

import html
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from aiohttp import hdrs, web

from config.errors import RelayError
from relay import audit
from relay.console.access import CALLER, Handler, address_of, see_other
from relay.errors import (
    AuditUnavailable,
    Refused,
    Rejected,
    StoreUnavailable,
    TooManyLogins,
    Unauthenticated,
)

API = "/api/"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise itself."""

_diagnostics = logging.getLogger("relay.console")


class Fault(NamedTuple):
    """What the sender of a request is told."""

    status: int
    code: str
    message: str


ERROR_PAGE: web.AppKey[Callable[[web.Request, Fault], Awaitable[web.Response]]] = web.AppKey(
    "error page"
)
"""How a fault is shown to people; a plain page if nothing is set."""


class Problem(msgspec.Struct, frozen=True):
    """Why a request was not done."""

    code: str
    message: str


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The body of every answer of the API that is no success."""

    error: Problem


@web.middleware
async def with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add the headers that a browser must see; those of a stream are the handler's to send."""
    response = await handler(request)
    if not response.prepared:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
    return response


@web.middleware
async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer whatever goes wrong."""
    headers: dict[str, str] = {}
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            return web.Response(status=error.status, headers=error.headers)
        fault = Fault(error.status, error.reason.lower().replace(" ", "_"), error.reason)
        if hdrs.ALLOW in error.headers:
            headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    except Refused as error:
        fault = Fault(error.status, error.code, str(error))
        if isinstance(error, Unauthenticated) and _is_for_people(request):
            return see_other("/login")
        if isinstance(error, TooManyLogins):
            headers[hdrs.RETRY_AFTER] = str(error.retry_after)
        _tell(request, fault)
    except Rejected as error:
        fault = Fault(error.status, error.answer.replace(" ", "_"), error.reason)
    except AuditUnavailable as error:
        fault = Fault(503, "audit_unavailable", str(error))
    except StoreUnavailable as error:
        fault = Fault(503, "store_unavailable", str(error))
    except web.RequestPayloadError:
        fault = Fault(400, "bad_request", "the body cannot be read")
    except ConnectionError:
        # The sender has gone.
        raise
    except RelayError as error:
        fault = Fault(500, "misconfigured", str(error))
    except Exception:
        _diagnostics.exception("a request failed")
        fault = Fault(500, "internal", "an error that was not foreseen, see the diagnostics")
    if fault.status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    response = await _shown(request, fault)
    response.headers.update(headers)
    return response


def _tell(request: web.Request, fault: Fault) -> None:
    """A refusal is a line of the audit, without what was sent."""
    if fault.status not in (401, 403, 429):
        return
    caller = request.get(CALLER)
    audit.log.warning(
        "console.refused",
        status=fault.status,
        reason=fault.message,
        remote=address_of(request),
        by=caller.name if caller else "",
        method=request.method,
        path=request.match_info.route.resource.canonical
        if request.match_info.route.resource
        else "",
    )


def _is_for_people(request: web.Request) -> bool:
    return request.method in (hdrs.METH_GET, hdrs.METH_HEAD) and not request.path.startswith(API)


async def _shown(request: web.Request, fault: Fault) -> web.Response:
    if request.path.startswith(API):
        return web.Response(
            body=msgspec.json.encode(ErrorAnswer(Problem(fault.code, fault.message))),
            status=fault.status,
            content_type="application/json",
        )
    if ERROR_PAGE in request.app:
        return await request.app[ERROR_PAGE](request, fault)
    message = html.escape(fault.message)
    return web.Response(
        text=f"<!doctype html><title>{fault.status}</title><h1>{fault.status}</h1><p>{message}",
        status=fault.status,
        content_type="text/html",
    )
