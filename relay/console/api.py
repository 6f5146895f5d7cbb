"""The JSON API below /api/v1: the table of its endpoints, and the document that describes it."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from relay.console import acting, asking, planning
from relay.console.access import needs
from relay.console.endpoints import PREFIX, Endpoint, Nothing, add
from relay.console.openapi import document
from relay.ledger.details import Details

ENDPOINTS: tuple[Endpoint[Any, Any], ...] = (
    Endpoint("GET", "/health", planning.health, planning.Health, Nothing, Nothing),
    Endpoint(
        "GET",
        "/deliveries",
        asking.list_deliveries,
        asking.Page,
        asking.DeliveryQuery,
        Nothing,
    ),
    Endpoint("GET", "/deliveries/{id}", asking.show_delivery, Details, Nothing, Nothing),
    Endpoint(
        "GET",
        "/deliveries/{id}/payload",
        asking.show_payload,
        asking.Payload,
        Nothing,
        Nothing,
    ),
    Endpoint("GET", "/deploys", asking.list_deploys, asking.Page, asking.DeployQuery, Nothing),
    Endpoint("GET", "/deploys/{id}", asking.show_deploy, Details, Nothing, Nothing),
    Endpoint(
        "POST",
        "/deliveries/replay",
        acting.replay_deliveries,
        acting.Results,
        Nothing,
        acting.Replay,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deliveries/cancel",
        acting.cancel_deliveries,
        acting.Results,
        Nothing,
        acting.Deed,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/replay",
        acting.replay_deploys,
        acting.Results,
        Nothing,
        acting.Replay,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/cancel",
        acting.cancel_deploys,
        acting.Results,
        Nothing,
        acting.Deed,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/approve",
        acting.approve_deploys,
        acting.Results,
        Nothing,
        acting.Approval,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/dismiss",
        acting.dismiss_deploys,
        acting.Results,
        Nothing,
        acting.Dismissal,
        role="operator",
    ),
    Endpoint(
        "GET",
        "/history",
        asking.list_history,
        asking.HistoryPage,
        asking.HistoryQuery,
        Nothing,
    ),
    Endpoint("GET", "/routes", planning.list_routes, planning.Routes, Nothing, Nothing),
    Endpoint("GET", "/sources", planning.list_sources, planning.Sources, Nothing, Nothing),
    Endpoint("GET", "/targets", planning.list_targets, planning.Targets, Nothing, Nothing),
    Endpoint(
        "POST",
        "/targets/{name}/pause",
        acting.pause_target,
        acting.TargetChanged,
        Nothing,
        Nothing,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/targets/{name}/resume",
        acting.resume_target,
        acting.TargetChanged,
        Nothing,
        Nothing,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/explain",
        planning.explain,
        planning.Explained,
        Nothing,
        planning.Question,
        large=True,
    ),
)


def setup(app: web.Application) -> None:
    """Add the API to the console."""
    for endpoint in ENDPOINTS:
        add(app, endpoint)
    described = msgspec.json.encode(document(ENDPOINTS))

    @needs(None)
    async def describe(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    app.router.add_get(f"{PREFIX}/openapi.json", describe)
