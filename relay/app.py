"""The receiver as a process: builds it from settings and relay.yaml, serves, and stops cleanly."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import functools
import gc
import socket
from collections.abc import Mapping

from aiohttp import web
from yarl import URL

from config.loading import Loaded
from config.model import RelayConfig, Source
from config.origin import Origin
from config.patterns import PatternSet
from config.settings import Settings
from relay.audit import log
from relay.connections import Bounds, most_connections
from relay.errors import CannotListen, CannotSpool
from relay.gauges import ReadTargets
from relay.intake import Intake
from relay.limits import ByteBudget, TokenBucket
from relay.payloads_kept import PayloadKeeper
from relay.providers import DIALECTS
from relay.receiver import Receiver, Sender
from relay.reloading import Reloading
from relay.routing import REPOSITORIES_REMEMBERED, Router
from relay.scraping import counted
from relay.signals import on_signals
from relay.spool import SUFFIX, Spool
from relay.store import connect_async
from relay.tracing import traced


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


async def serve(
    settings: Settings,
    config: RelayConfig,
    origin: Origin,
    read_targets: ReadTargets,
    *,
    share_port: bool = False,
) -> None:
    """Receive webhooks until SIGTERM or SIGINT; then finish what is in flight and return.

    ``read_targets`` says for scrapes how targets stand. ``share_port`` lets other processes of the
    same user listen on the same port.
    """
    targets = config.targets
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout)
    intake = Intake(
        redis,
        queue=settings.queue,
        window=settings.duplicate_window,
        failure_ttl=settings.dead_letter_ttl,
        timeout=settings.store_timeout,
        replicas=settings.redis_replicas,
        spool=_spool(settings),
    )
    payloads = (
        PayloadKeeper(redis, budget=settings.payloads_kept, seconds=settings.duplicate_window)
        if settings.payloads_kept
        else None
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
        payloads=payloads,
        config=origin.version,
    )

    def renewed(loaded: Loaded) -> Receiver:
        nonlocal targets
        targets = loaded.config.targets
        new = dataclasses.replace(
            receiver,
            senders=senders(loaded.config.sources),
            router=Router(loaded.config.routes),
            config=loaded.origin.version,
        )
        gc.freeze()
        return new

    reloading = Reloading(
        settings, receiver, origin, process="receiver", secrets_of=["sources"], make=renewed
    )
    stop = asyncio.Event()
    on_signals(stop=stop.set, reload=reloading.hurry)

    server = receiver.server(lambda: reloading.current)
    runner = web.ServerRunner(server, shutdown_timeout=settings.shutdown_grace)
    await runner.setup()
    # relay.yaml and the modules stay; the collector need not look through them again and again.
    gc.freeze()
    async with (
        traced(settings, "receiver"),
        counted(settings, "receiver", lambda: targets, read_targets),
    ):
        await intake.start()
        if payloads is not None:
            payloads.start()
        site = web.SockSite(runner, listen(settings.host, settings.port, share=share_port))
        await site.start()
        host, port = runner.addresses[0][:2]
        log.info(
            "receiver.started",
            url=str(URL.build(scheme="http", host=host, port=port, path="/hooks/")),
            sources=sorted(config.sources),
            routes=len(config.routes),
            config=origin.version,
        )
        watching = asyncio.create_task(reloading.run())
        try:
            await stop.wait()
        finally:
            watching.cancel()
            await runner.cleanup()
            await intake.stop()
            if payloads is not None:
                await payloads.stop()
            await redis.aclose()
    log.info("receiver.stopped")


def _spool(settings: Settings) -> Spool | None:
    """The spool, unless it is switched off. Raises CannotSpool, also where it was switched off with
    deliveries in it: they were accepted."""
    folder = settings.spool_folder
    if settings.spool_max_bytes:
        return Spool(folder, max_bytes=settings.spool_max_bytes)
    if any(folder.glob(f"*{SUFFIX}")):
        raise CannotSpool(
            f"deliveries wait in {folder}: run the receiver with RELAY_SPOOL_MAX_BYTES over 0 "
            "until they have been forwarded"
        )
    return None


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
