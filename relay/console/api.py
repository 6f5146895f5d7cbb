"""The JSON API below /api/v1: the table of its endpoints, and the document that describes it."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from relay.console import actions, config_api, read
from relay.console.access import needs
from relay.console.endpoints import PREFIX, Endpoint, Nothing, add
from relay.console.openapi import document
from relay.ledger.details import Details

ENDPOINTS: tuple[Endpoint[Any, Any], ...] = (
    Endpoint("GET", "/health", config_api.health, config_api.Health, Nothing, Nothing),
    Endpoint(
        "GET",
        "/deliveries",
        read.list_deliveries,
        read.Page,
        read.DeliveryQuery,
        Nothing,
    ),
    Endpoint("GET", "/deliveries/{id}", read.show_delivery, Details, Nothing, Nothing),
    Endpoint(
        "GET",
        "/deliveries/{id}/payload",
        read.show_payload,
        read.Payload,
        Nothing,
        Nothing,
    ),
    Endpoint("GET", "/deploys", read.list_deploys, read.Page, read.DeployQuery, Nothing),
    Endpoint("GET", "/deploys/{id}", read.show_deploy, Details, Nothing, Nothing),
    Endpoint(
        "POST",
        "/deliveries/replay",
        actions.replay_deliveries,
        actions.Results,
        Nothing,
        actions.Replay,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deliveries/cancel",
        actions.cancel_deliveries,
        actions.Results,
        Nothing,
        actions.Deed,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/replay",
        actions.replay_deploys,
        actions.Results,
        Nothing,
        actions.Replay,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/cancel",
        actions.cancel_deploys,
        actions.Results,
        Nothing,
        actions.Deed,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/approve",
        actions.approve_deploys,
        actions.Results,
        Nothing,
        actions.Approval,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/deploys/dismiss",
        actions.dismiss_deploys,
        actions.Results,
        Nothing,
        actions.Dismissal,
        role="operator",
    ),
    Endpoint(
        "GET",
        "/history",
        read.list_history,
        read.HistoryPage,
        read.HistoryQuery,
        Nothing,
    ),
    Endpoint("GET", "/routes", config_api.list_routes, config_api.Routes, Nothing, Nothing),
    Endpoint("GET", "/sources", config_api.list_sources, config_api.Sources, Nothing, Nothing),
    Endpoint("GET", "/targets", config_api.list_targets, config_api.Targets, Nothing, Nothing),
    Endpoint(
        "POST",
        "/targets/{name}/pause",
        actions.pause_target,
        actions.TargetChanged,
        Nothing,
        Nothing,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/targets/{name}/resume",
        actions.resume_target,
        actions.TargetChanged,
        Nothing,
        Nothing,
        role="operator",
    ),
    Endpoint(
        "POST",
        "/explain",
        config_api.explain,
        config_api.Explained,
        Nothing,
        config_api.Question,
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
