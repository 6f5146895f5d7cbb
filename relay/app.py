"""The receiver as a process: builds it from settings and relay.yaml, serves, and stops cleanly."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping

from aiohttp import web

from config.loading import Loaded
from config.model import Source
from config.patterns import PatternSet
from config.settings import Settings
from relay.audit import log
from relay.intake import Intake
from relay.providers import DIALECTS
from relay.receiver import Receiver, Sender
from relay.routing import Router
from relay.store import connect_async


def senders(sources: Mapping[str, Source]) -> dict[str, Sender]:
    """The dialect of every source with its keys, which must have been loaded."""
    return {
        name: Sender(
            dialect=DIALECTS[source.provider](
                secrets=[ref.reveal() for ref in source.secrets],
                signing_tokens=[ref.reveal() for ref in source.signing_tokens],
                tolerance=source.tolerance,
            ),
            repos=PatternSet(source.repos, "path", ignore_case=True),
        )
        for name, source in sources.items()
    }


async def serve(settings: Settings, loaded: Loaded) -> None:
    """Receive webhooks until SIGTERM or SIGINT; then finish what is in flight and return."""
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout)
    intake = Intake(
        redis,
        queue=settings.queue,
        window=settings.duplicate_window,
        failure_ttl=settings.dead_letter_ttl,
        timeout=settings.store_timeout,
    )
    receiver = Receiver(
        senders=senders(loaded.config.sources),
        router=Router(loaded.config.routes),
        intake=intake,
        max_body=settings.max_body,
        body_timeout=settings.body_timeout,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    runner = web.AppRunner(
        receiver.application(),
        access_log=None,
        shutdown_timeout=settings.shutdown_grace,
        auto_decompress=False,
    )
    await runner.setup()
    site = web.SockSite(runner, _listen(settings.host, settings.port))
    await site.start()
    host, port = runner.addresses[0][:2]
    log.info(
        "receiver.started",
        url=f"http://{host}:{port}/hooks/",
        sources=sorted(loaded.config.sources),
        routes=len(loaded.config.routes),
    )
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
        await intake.drain()
        await redis.aclose()
    log.info("receiver.stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
