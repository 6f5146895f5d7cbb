"""The receiver as a process: builds it from settings and relay.yaml, serves, and stops cleanly."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import signal
import socket
from collections.abc import Mapping

from aiohttp import web

from config.model import RelayConfig, Source
from config.patterns import PatternSet
from config.settings import Settings
from relay.audit import log
from relay.connections import Bounds, most_connections
from relay.errors import CannotListen
from relay.intake import Intake
from relay.limits import ByteBudget, TokenBucket
from relay.providers import DIALECTS
from relay.receiver import Receiver, Sender
from relay.routing import REPOSITORIES_REMEMBERED, Router
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
            # The same few thousand repositories send over and over.
            speaks_for=functools.lru_cache(maxsize=REPOSITORIES_REMEMBERED)(
                PatternSet(source.repos, "path", ignore_case=True).matches
            ),
            networks=source.networks,
            rate=TokenBucket(*source.rate) if source.rate is not None else None,
        )
        for name, source in sources.items()
    }


async def serve(settings: Settings, config: RelayConfig, *, share_port: bool = False) -> None:
    """Receive webhooks until SIGTERM or SIGINT; then finish what is in flight and return.

    ``share_port`` lets other processes of the same user listen on the same port.
    """
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout)
    intake = Intake(
        redis,
        queue=settings.queue,
        window=settings.duplicate_window,
        failure_ttl=settings.dead_letter_ttl,
        timeout=settings.store_timeout,
        replicas=settings.redis_replicas,
    )
    receiver = Receiver(
        senders=senders(config.sources),
        router=Router(config.routes),
        intake=intake,
        max_body=settings.max_body,
        body_timeout=settings.body_timeout,
        bodies=ByteBudget(settings.bodies_in_memory),
        trusted_proxies=settings.trusted_proxies,
        bounds=Bounds(
            header_timeout=settings.header_timeout,
            keep_alive=settings.keep_alive,
            most=most_connections(settings.max_connections),
        ),
    )

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    runner = web.ServerRunner(receiver.server(), shutdown_timeout=settings.shutdown_grace)
    await runner.setup()
    # relay.yaml and the modules stay; the collector need not look through them again and again.
    gc.freeze()
    site = web.SockSite(runner, listen(settings.host, settings.port, share=share_port))
    await site.start()
    host, port = runner.addresses[0][:2]
    log.info(
        "receiver.started",
        url=f"http://{host}:{port}/hooks/",
        sources=sorted(config.sources),
        routes=len(config.routes),
    )
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
        await intake.drain()
        await redis.aclose()
    log.info("receiver.stopped")


def listen(host: str, port: int, *, share: bool) -> socket.socket:
    """A listening socket. With ``share`` the kernel spreads connections over all that listen on the
    same port (SO_REUSEPORT, socket(7)). Raises CannotListen, also where a port is taken without it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, reuse_port=share)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"is refused: {error.strerror}"
        raise CannotListen(f"{host}:{port} {why}") from None
