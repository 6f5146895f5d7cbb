"""Logging in and out: ``POST /login`` with the field ``token``, ``POST /logout``."""

from __future__ import annotations

from aiohttp import web

from relay.console.access import CALLER, address_of, keep_session, needs, see_other
from relay.console.context import CONTEXT
from relay.console.sessions import COOKIE


def setup(app: web.Application) -> None:
    """Add both to the console."""
    app.router.add_post("/login", log_in)
    app.router.add_post("/logout", log_out)
    app.router.add_get("/healthz", alive)


@needs(None)
async def log_in(request: web.Request) -> web.StreamResponse:
    """Open a session and go to the first page."""
    given = str((await request.post()).get("token", "")).strip()
    id_ = await request.app[CONTEXT].sessions.open(given, address_of(request))
    response = see_other("/")
    keep_session(request, response, id_)
    return response


@needs("viewer")
async def log_out(request: web.Request) -> web.StreamResponse:
    """End the session and go to the login."""
    if request[CALLER].session is not None:
        await request.app[CONTEXT].sessions.close(request.cookies[COOKIE])
    response = see_other("/login")
    response.del_cookie(COOKIE, path="/")
    return response


@needs(None)
async def alive(_: web.Request) -> web.StreamResponse:
    """Answer that this process does; it says nothing of the ledger."""
    return web.json_response({"status": "ok"})
