"""The page of routes, and what would happen if a webhook came."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from aiohttp import web

from relay.console.access import needs
from relay.console.context import CONTEXT, Context
from relay.console.planning import Explained, explained, explained_event, route_shown
from relay.console.rendering import page
from relay.errors import NoSuchThing, Refused, Rejected
from relay.events.event import Delivery
from relay.explanation import event_facts
from relay.filtering import Filter
from relay.reading import read_argument
from relay.records import JOB_PREFIX, STRIPPED_FIELD

MOST_ROUTES = 500
"""Routes that are shown, the first of relay.yaml."""

SUGGESTED = 20
"""Stored deliveries that are offered."""

LOOKED_AT = 1_000
"""Jobs looked at in each place to find them."""


class Question(NamedTuple):
    """What was asked: a stored delivery, or else a payload."""

    delivery: str = ""
    source: str = ""
    event: str = ""
    payload: str = ""


@needs("viewer")
async def routes_page(request: web.Request) -> web.Response:
    """The routes as relay.yaml has them, and the form."""
    return await _page(request, Question(delivery=request.query.get("delivery", "")))


@needs("viewer")
async def explain(request: web.Request) -> web.Response:
    """The same page with the answer."""
    form = await request.post()
    asked = Question(*(str(form.get(name, "")).strip() for name in Question._fields))
    try:
        told = await _explained(request.app[CONTEXT], asked)
    except Rejected as error:
        return await _page(request, asked, mistake=f"The payload is not understood: {error.reason}")
    except Refused as error:
        text = str(error)
        return await _page(request, asked, mistake=f"{text[:1].upper()}{text[1:]}.")
    return await _page(request, asked, told)


async def _explained(context: Context, asked: Question) -> Explained:
    plan = context.plan()
    if asked.delivery:
        fields: Any = await context.redis.hmget(
            JOB_PREFIX + asked.delivery, ["data", STRIPPED_FIELD]
        )
        data, stripped = fields
        delivery = read_argument(data or b"", Delivery)
        if stripped is not None and delivery is None:
            raise Refused("the event of this delivery is not kept any more (RELAY_HISTORY)")
        if delivery is None:
            raise NoSuchThing("there is no such delivery, or not any more")
        return await asyncio.to_thread(explained_event, plan, delivery.source, delivery.event)
    if not asked.payload:
        raise Refused("paste a payload, or name a stored delivery")
    return await asyncio.to_thread(
        explained, plan, asked.source, asked.payload.encode(), asked.event or None
    )


async def _page(
    request: web.Request, asked: Question, told: Explained | None = None, *, mistake: str = ""
) -> web.Response:
    context = request.app[CONTEXT]
    config = context.plan().config
    found = await context.archive.find("delivery", Filter(), SUGGESTED, most=LOOKED_AT)
    return page(
        request,
        "routes.html",
        status=400 if mistake else 200,
        here="routes",
        asked=asked,
        mistake=mistake,
        told=None,
        explained=told,
        facts=list(event_facts(told.event)) if told and told.event else [],
        known=await context.archive.read("delivery", found.ids),
        sources=list(config.sources),
        routes=[route_shown(route) for route in config.routes[:MOST_ROUTES]],
        more_routes=max(0, len(config.routes) - MOST_ROUTES),
    )
