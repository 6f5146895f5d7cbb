"""The payload of a delivery, as its page shows it, and all of it as text."""

from __future__ import annotations

import asyncio

from aiohttp import web

from relay.console import words
from relay.console.context import CONTEXT, Context
from relay.errors import NoSuchThing
from relay.events.ids import row_number
from relay.ledger.payloads import read_payload
from relay.payload_text import beginning, whole

MOST_PAYLOAD = 65_536
"""Characters of a payload on a delivery's page; all of it has a page of its own."""

PAYLOAD_POLICY = {"Content-Security-Policy": "default-src 'none'; sandbox"}
"""Of a text that a sender wrote: whatever a browser makes of it, it may do nothing here."""


async def payload(request: web.Request) -> web.Response:
    """Answer with the payload of a delivery, all of it."""
    body = await payload_of(request.app[CONTEXT], request.match_info["id"])
    text = await asyncio.to_thread(whole, body)
    return web.Response(text=text, content_type="text/plain", headers=PAYLOAD_POLICY)


async def payload_of(context: Context, id_: str) -> bytes:
    """Return the payload of a delivery, as JSON. Raises NoSuchThing with the reason where there is
    none, and LedgerUnavailable."""
    number = row_number("delivery", id_)
    if number is None:
        raise NoSuchThing(f"no delivery has the id {id_}")
    ledger = context.ledger
    return await ledger.read(lambda reader: read_payload(reader, ledger.folder, number))


async def beginning_of(context: Context, id_: str) -> tuple[str, str]:
    """Return what a payload begins with, or why there is none. Raises LedgerUnavailable."""
    try:
        body = await payload_of(context, id_)
    except NoSuchThing as error:
        return "", words.sentence(str(error))
    return await asyncio.to_thread(beginning, body, MOST_PAYLOAD), ""
