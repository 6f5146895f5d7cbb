"""The page of routes, and what a webhook would cause."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import web

from relay.console.access import needs
from relay.console.config_api import Explained, explained, explained_event, route_shown
from relay.console.context import CONTEXT, Context
from relay.console.detail_pages import read_stored
from relay.console.rendering import page
from relay.errors import Refused, Rejected
from relay.explanation import event_facts
from relay.ledger.filters import Filter
from relay.ledger.lists import list_records

MOST_ROUTES = 500
"""Routes that are shown, the first of relay.yaml."""

SUGGESTED = 20
"""Stored deliveries that are offered."""


class ExplainForm(NamedTuple):
    """A webhook: a stored delivery, or else a payload."""

    delivery: str = ""
    source: str = ""
    event: str = ""
    payload: str = ""


@needs("viewer")
async def routes_page(request: web.Request) -> web.Response:
    """Show the routes as relay.yaml has them, and the form."""
    return await _page(request, ExplainForm(delivery=request.query.get("delivery", "")))


@needs("viewer")
async def explain(request: web.Request) -> web.Response:
    """Show the same page with the answer."""
    posted = await request.post()
    form = ExplainForm(*(str(posted.get(name, "")).strip() for name in ExplainForm._fields))
    try:
        answer = await _explained(request.app[CONTEXT], form)
    except Rejected as error:
        return await _page(request, form, mistake=f"The payload is not understood: {error.reason}")
    except Refused as error:
        text = str(error)
        return await _page(request, form, mistake=f"{text[:1].upper()}{text[1:]}.")
    return await _page(request, form, answer)


async def _explained(context: Context, form: ExplainForm) -> Explained:
    plan = context.plan()
    if form.delivery:
        delivery = await context.ledger.read(lambda reader: read_stored(reader, form.delivery))
        return await asyncio.to_thread(explained_event, plan, delivery.source, delivery.event)
    if not form.payload:
        raise Refused("paste a payload, or name a stored delivery")
    return await asyncio.to_thread(
        explained, plan, form.source, form.payload.encode(), form.event or None
    )


async def _page(
    request: web.Request, form: ExplainForm, answer: Explained | None = None, *, mistake: str = ""
) -> web.Response:
    context = request.app[CONTEXT]
    config = context.plan().config
    newest = await context.ledger.read(
        lambda reader: list_records(reader, "delivery", Filter(), SUGGESTED)
    )
    return page(
        request,
        "routes.html",
        status=400 if mistake else 200,
        here="routes",
        form=form,
        mistake=mistake,
        explained=answer,
        facts=list(event_facts(answer.event)) if answer and answer.event else [],
        suggested=newest.records,
        sources=list(config.sources),
        routes=[route_shown(route) for route in config.routes[:MOST_ROUTES]],
        more_routes=max(0, len(config.routes) - MOST_ROUTES),
    )
