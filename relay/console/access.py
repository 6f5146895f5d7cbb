"""Who sends a request, and whether they may: a token in the header Authorization, or a session's
cookie."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from aiohttp import hdrs, web

from config.networks import is_within, parse_address
from config.settings import Settings
from relay.console.context import CONTEXT
from relay.console.sessions import COOKIE, LIFETIME, is_form_key
from relay.errors import Forbidden, Unauthenticated
from relay.http.client_address import client_address
from relay.ledger.sessions import Session
from relay.tokens import Role, Token

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Handler)

CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"
"""Where a request that changes something brings along its session's ``form_key``."""

OPEN_FOLDER = "/static/"
"""Paths below need no login."""

_SAFE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_RANKS: dict[Role, int] = {"viewer": 0, "operator": 1}
_NEEDS = "relay_needs"


class Caller(NamedTuple):
    """Who sends a request."""

    token: Token
    session: Session | None
    """None where the token itself was sent."""

    @property
    def name(self) -> str:
        """Return the name that the audit has of who acted."""
        return self.token.name

    def may(self, role: Role) -> bool:
        """Return whether what this role may do is allowed."""
        return _RANKS[self.token.role] >= _RANKS[role]


CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
"""Set in every request but those that ``needs(None)`` lets in."""


def needs(role: Role | None) -> Callable[[H], H]:
    """Mark a handler: who may call it; None for anybody. Of others a viewer may GET and HEAD, and
    an operator everything."""

    def mark(handler: H) -> H:
        setattr(handler, _NEEDS, role)
        return handler

    return mark


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in who may. Raises Unauthenticated and Forbidden."""
    matched = request.match_info
    default: Role = "viewer" if request.method in _SAFE else "operator"
    needed: Role | None = getattr(matched.handler, _NEEDS, default)
    if request.method not in _SAFE and _is_cross_site(request):
        raise Forbidden("the request comes from another site")
    if matched.http_exception is not None or needed is None or request.path.startswith(OPEN_FOLDER):
        return await handler(request)
    caller = await _caller(request)
    request[CALLER] = caller
    if caller.session is not None and request.method not in _SAFE:
        await _check_csrf(request, caller.session)
    if not caller.may(needed):
        raise Forbidden(f"this needs a token with the role {needed}")
    return await handler(request)


def address_of(request: web.Request) -> str:
    """Return the address of the sender; behind a trusted proxy, the one that it passed on."""
    trusted = request.app[CONTEXT].settings.trusted_proxies
    forwarded = request.headers.getall(hdrs.X_FORWARDED_FOR, ())
    return str(client_address(_peer(request), forwarded, trusted) or "")


def keep_session(request: web.Request, response: web.StreamResponse, id_: str) -> None:
    """Give a browser its session's cookie."""
    response.set_cookie(
        COOKIE,
        id_,
        max_age=LIFETIME,
        path="/",
        secure=_is_secure(request, request.app[CONTEXT].settings),
        httponly=True,
        samesite="Lax",
    )


def see_other(place: str) -> web.Response:
    """Have a browser go to another page of ours."""
    return web.Response(status=303, headers={hdrs.LOCATION: place})


async def _caller(request: web.Request) -> Caller:
    context = request.app[CONTEXT]
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is not None:
        scheme, _, text = header.partition(" ")
        is_bearer = scheme.lower() == "bearer"
        token = await context.sessions.verify(text.strip()) if is_bearer else None
        if token is None:
            raise Unauthenticated("the header Authorization has no valid token")
        return Caller(token, None)
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise Unauthenticated("a token is needed: Authorization: Bearer drt_...")
    opened = await context.sessions.find(cookie)
    if opened is None:
        raise Unauthenticated("the session has ended: log in again")
    session, token = opened
    return Caller(token, session)


async def _check_csrf(request: web.Request, session: Session) -> None:
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.content_type in (
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ):
        given = str((await request.post()).get(CSRF_FIELD, ""))
    if given is None or not is_form_key(session, given):
        raise Forbidden(f"the session's token is missing: {CSRF_HEADER}, or the field {CSRF_FIELD}")


def _is_cross_site(request: web.Request) -> bool:
    """Return what browsers say of a request's origin, where they do.
    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site"""
    return request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")


def _is_secure(request: web.Request, settings: Settings) -> bool:
    if request.secure:
        return True
    peer = parse_address(_peer(request))
    is_trusted = peer is not None and is_within(peer, settings.trusted_proxies)
    return is_trusted and request.headers.get(hdrs.X_FORWARDED_PROTO, "").lower() == "https"


def _peer(request: web.Request) -> str:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return str(peer[0]) if isinstance(peer, tuple) else ""
