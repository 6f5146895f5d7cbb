"""The JSON API below /api/v1."""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from relay import __version__
from relay.console.context import CONTEXT


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the console can do its work."""

    status: Literal["ok"]
    version: str
    config: str
    """The version of relay.yaml, as in the audit."""


def setup(app: web.Application) -> None:
    """Add the API to the console."""
    app.router.add_get("/api/v1/health", health)


async def health(request: web.Request) -> web.Response:
    """Raises redis.exceptions.RedisError where Redis does not answer."""
    context = request.app[CONTEXT]
    await context.redis.ping()
    told = Health(status="ok", version=__version__, config=context.plan().version)
    return web.Response(body=msgspec.json.encode(told), content_type="application/json")
