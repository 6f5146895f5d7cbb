"""The JSON API below /api/v1: the table of its endpoints, and the document that describes it."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from relay.console import actions, config_api, read
from relay.console.access import needs
from relay.console.endpoints import PREFIX, Endpoint, add, endpoint
from relay.console.openapi import document

ENDPOINTS: tuple[Endpoint[Any, Any], ...] = (
    endpoint("GET", "/health", config_api.health),
    endpoint("GET", "/deliveries", read.list_deliveries),
    endpoint("GET", "/deliveries/{id}", read.show_delivery),
    endpoint("GET", "/deliveries/{id}/payload", read.show_payload),
    endpoint("GET", "/deploys", read.list_deploys),
    endpoint("GET", "/deploys/{id}", read.show_deploy),
    endpoint("POST", "/deliveries/replay", actions.replay_deliveries, role="operator"),
    endpoint("POST", "/deliveries/cancel", actions.cancel_deliveries, role="operator"),
    endpoint("POST", "/deploys/replay", actions.replay_deploys, role="operator"),
    endpoint("POST", "/deploys/cancel", actions.cancel_deploys, role="operator"),
    endpoint("POST", "/deploys/approve", actions.approve_deploys, role="operator"),
    endpoint("POST", "/deploys/dismiss", actions.dismiss_deploys, role="operator"),
    endpoint("GET", "/history", read.list_history),
    endpoint("GET", "/routes", config_api.list_routes),
    endpoint("GET", "/sources", config_api.list_sources),
    endpoint("GET", "/targets", config_api.list_targets),
    endpoint("POST", "/targets/{name}/pause", actions.pause_target, role="operator"),
    endpoint("POST", "/targets/{name}/resume", actions.resume_target, role="operator"),
    endpoint("POST", "/explain", config_api.explain, large=True),
)


def setup(app: web.Application) -> None:
    """Add the API to the console."""
    for one in ENDPOINTS:
        add(app, one)
    described = msgspec.json.encode(document(ENDPOINTS))

    @needs(None)
    async def describe(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    app.router.add_get(f"{PREFIX}/openapi.json", describe)
