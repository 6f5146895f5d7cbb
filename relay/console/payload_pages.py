"""The payload of a delivery, as its page shows it, and all of it as text."""

from __future__ import annotations

import asyncio

from aiohttp import web

from relay.console import asking, words
from relay.console.context import CONTEXT, Context
from relay.errors import NoSuchThing
from relay.payload_reading import beginning, read_payload, whole
from relay.reading import Record

MOST_PAYLOAD = 65_536
"""Characters of a payload on a delivery's page; all of it has a page of its own."""

PAYLOAD_POLICY = {"Content-Security-Policy": "default-src 'none'; sandbox"}
"""Of a text that a sender wrote: whatever a browser makes of it, it is nobody's page."""


async def payload(request: web.Request) -> web.Response:
    """The payload of a delivery, all of it."""
    found = await asking.payload(request.app[CONTEXT], request.match_info["id"])
    text = await asyncio.to_thread(whole, found)
    return web.Response(text=text, content_type="text/plain", headers=PAYLOAD_POLICY)


async def beginning_of(context: Context, record: Record) -> tuple[str, str]:
    """What a payload begins with, or why there is none. Raises redis.exceptions.RedisError."""
    try:
        found = await read_payload(context.redis, record, context.settings)
    except NoSuchThing as error:
        return "", words.sentence(str(error))
    return beginning(found, MOST_PAYLOAD), ""
