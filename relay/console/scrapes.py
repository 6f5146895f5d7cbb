"""The metrics, for a Prometheus that has a viewer's token."""

from __future__ import annotations

from aiohttp import web

from relay.console.context import CONTEXT
from relay.metrics_endpoint import Pages, metrics_page


def setup(app: web.Application) -> None:
    """Add ``/metrics`` to the console."""
    pages = Pages()

    async def scraped(request: web.Request) -> web.Response:
        context = request.app[CONTEXT]
        targets = context.plan().config.targets
        return await pages.answer(lambda: metrics_page(context.settings, targets))

    app.router.add_get("/metrics", scraped)
