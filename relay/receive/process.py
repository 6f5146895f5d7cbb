"""The receiver process: opens the ledger, puts everything together, serves, and stops cleanly."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from yarl import URL

from config.loading import Loaded
from config.model import RelayConfig
from config.origin import Origin
from config.settings import Settings
from relay import audit
from relay.audit import log
from relay.cleaner import Cleaner
from relay.errors import LedgerUnavailable
from relay.http.body import BodyReader
from relay.http.client_address import ClientAddresses
from relay.http.connections import ConnectionBounds, most_connections
from relay.http.limits import ByteBudget
from relay.http.listen import listen
from relay.ledger.ledger import MOST_OF_A_RECEIVER, Ledger
from relay.ledger.payload_files import PayloadFiles, named_files
from relay.ledger_marks import RedisMark, check_at_start
from relay.ledger_start import open_ledger
from relay.metrics_endpoint import counted
from relay.queue.former_release import refuse_former_release
from relay.queue.probe import QueueProbe
from relay.queue.sweep import Sweep
from relay.queue.wakeups import Wakeups
from relay.receive.handler import Receiver
from relay.receive.intake import Intake
from relay.receive.payload import PayloadPacker
from relay.receive.readiness import Readiness
from relay.receive.redact_payload import PayloadRedactor
from relay.receive.refusals import Refusals
from relay.receive.sources import ready_sources
from relay.reloading import Reloading
from relay.routing import Router
from relay.signals import on_signals
from relay.tracing import traced

_diagnostics = logging.getLogger("relay.receive")


async def serve(
    settings: Settings,
    config: RelayConfig,
    origin: Origin,
    *,
    share_port: bool = False,
) -> None:
    """Receive webhooks until SIGTERM or SIGINT; then finish what is in flight and return.

    ``share_port`` lets other processes of the same user listen on the same port. Raises
    LedgerUnusable, CannotListen and OSError.
    """
    targets = config.targets
    async with receiving(settings, config, origin) as receiver:

        def renewed(loaded: Loaded) -> Receiver:
            nonlocal targets
            targets = loaded.config.targets
            new = dataclasses.replace(
                receiver,
                sources=ready_sources(loaded.config.sources),
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
            counted(settings, "receiver", lambda: targets),
        ):
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
    log.info("receiver.stopped")


@asynccontextmanager
async def receiving(
    settings: Settings, config: RelayConfig, origin: Origin
) -> AsyncIterator[Receiver]:
    """Yield a receiver on the ledger of ``settings``, which is made where there is none. What is in
    flight at the end of the block is committed. Raises FormerRelease, LedgerUnusable and OSError.
    """
    await refuse_former_release(settings)
    ledger = await asyncio.to_thread(
        open_ledger,
        settings,
        most=MOST_OF_A_RECEIVER,
        full_sync=settings.ledger_fsync == "full",
    )
    try:
        await check_at_start(ledger, settings)
    except BaseException:
        await ledger.close()
        raise
    url, queue = settings.redis_address(), settings.queue
    wakeups = Wakeups(url, queue, timeout=settings.store_timeout)
    probe = QueueProbe(url, queue)
    sweep = Sweep(
        ledger,
        wakeups,
        url=url,
        queue=queue,
        timeout=settings.store_timeout,
        is_behind=RedisMark(ledger, settings).exchange,
    )
    wakeups.start()
    files = PayloadFiles(settings.data_dir)
    payloads = PayloadPacker(PayloadRedactor(audit.redactor()), files)
    intake, refusals = Intake(ledger, wakeups), Refusals(ledger)
    refusals.start()
    sweep.start()
    cleaner = Cleaner(ledger, settings)
    cleaner.start()
    removing = asyncio.create_task(_remove_orphans(ledger, files))
    try:
        yield Receiver(
            sources=ready_sources(config.sources),
            router=Router(config.routes),
            intake=intake,
            payloads=payloads,
            readiness=Readiness(ledger, intake, probe.ask),
            refusals=refusals,
            bodies=BodyReader(
                settings.max_body, settings.body_timeout, ByteBudget(settings.bodies_in_memory)
            ),
            clients=ClientAddresses(settings.trusted_proxies),
            bounds=ConnectionBounds(
                header_timeout=settings.header_timeout,
                keep_alive=settings.keep_alive,
                most=most_connections(settings.max_connections),
            ),
            config=origin.version,
        )
    finally:
        await intake.stop()
        await refusals.stop()
        await cleaner.stop()
        await sweep.stop()
        removing.cancel()
        await asyncio.wait([removing])
        await wakeups.stop()
        await probe.close()
        payloads.close()
        await ledger.close()


async def _remove_orphans(ledger: Ledger, files: PayloadFiles) -> None:
    try:
        named = await ledger.read(named_files)
        await asyncio.to_thread(files.remove_orphans, named)
    except (LedgerUnavailable, OSError) as error:
        _diagnostics.warning("files of payloads were not looked through (%s)", error)
