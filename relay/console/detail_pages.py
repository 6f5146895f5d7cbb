"""The page of one delivery, and that of one deploy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from aiohttp import web

from relay.attempt_record import AttemptRecord
from relay.console import payloads
from relay.console.context import CONTEXT, Plan
from relay.console.delivery_timeline import (
    JudgedRoute,
    judged_routes,
    shown,
    steps,
    stored_routes,
)
from relay.console.read import details_of
from relay.console.rendering import message_of, page
from relay.errors import NoSuchRecord
from relay.events.event import Event
from relay.events.ids import row_number
from relay.ledger.details import Details, read_attempts, read_details
from relay.ledger.rows import decode_event
from relay.ledger.transaction import Reader


class RoutedEvent(NamedTuple):
    """What a delivery is routed by."""

    source: str
    event: Event
    config: str
    """Version of the relay.yaml that judged it when it came."""


async def delivery(request: web.Request) -> web.Response:
    """Show the timeline of a delivery."""
    context, id_ = request.app[CONTEXT], request.match_info["id"]
    details, stored, calls = await context.ledger.read(lambda reader: _read(reader, id_))
    plan = context.plan()
    judged = stored_routes(details) or _judge(plan, stored)
    payload, no_payload = await payloads.beginning_of(context, id_)
    return page(
        request,
        "delivery.html",
        here="deliveries",
        record=details.record,
        payload=payload,
        payload_is_cut=len(payload) >= payloads.MOST_PAYLOAD,
        no_payload=no_payload,
        steps=steps(details, calls, judged),
        explained=judged,
        is_explained_then=bool(details.reasons),
        plan_changed=bool(stored.config and stored.config != plan.version),
        event=_as_text(details.event),
        live=f"/live?delivery={quote(id_, safe='')}",
        message=message_of(request),
    )


async def deploy(request: web.Request) -> web.Response:
    """Show all that is known of a deploy."""
    id_ = request.match_info["id"]
    details = await details_of(request.app[CONTEXT], "deploy", id_)
    return page(
        request,
        "deploy.html",
        here="deploys",
        record=details.record,
        deploy=shown(details.record, details.attempts),
        live_now=details.live,
        actions=details.actions,
        event=_as_text(details.event),
        live=f"/live?deploy={quote(id_, safe='')}",
        message=message_of(request),
    )


async def read_stored(reader: Reader, id_: str) -> RoutedEvent:
    """Return what a delivery is routed by. Raises NoSuchThing."""
    number = row_number("delivery", id_)
    row = await reader.row("delivery", {"delivery": number}) if number else None
    if row is None:
        raise NoSuchRecord("delivery", id_)
    return RoutedEvent(row["source"], decode_event(row["event"]), row["config"])


async def _read(
    reader: Reader, id_: str
) -> tuple[Details, RoutedEvent, Mapping[str, Sequence[AttemptRecord]]]:
    stored = await read_stored(reader, id_)
    details = await read_details(reader, "delivery", id_)
    if details is None:
        raise NoSuchRecord("delivery", id_)
    calls = {}
    for record in details.deploys:
        number = row_number("deploy", record.id)
        calls[record.id] = await read_attempts(reader, number) if number else []
    return details, stored, calls


def _judge(plan: Plan, stored: RoutedEvent) -> list[JudgedRoute]:
    return judged_routes(plan.router.decide(stored.event, stored.source), stored.event.repo)


def _as_text(event: Any) -> str:
    return orjson.dumps(event, option=orjson.OPT_INDENT_2).decode()
