"""The console as a process: assembles it, serves, and stops cleanly."""

from __future__ import annotations

import asyncio

from aiohttp import web

from config.loading import Loaded
from config.settings import Settings
from relay.audit import log
from relay.console import api, faults, history_pages, login, pages, scrapes
from relay.console.access import admit
from relay.console.context import CONTEXT, Context, planned
from relay.console.server import Runner
from relay.console.sessions import Sessions
from relay.http.listen import listen
from relay.ledger_marks import check_at_start
from relay.ledger_start import open_ledger
from relay.reloading import Reloading
from relay.signals import on_signals
from relay.worker_list import Workers

MOST_BODY = 1_048_576
"""Bytes of a request's body, where a handler does not allow more."""


def assemble(context: Context) -> web.Application:
    """Return the whole console."""
    app = web.Application(
        middlewares=[faults.with_headers, faults.answered, admit],
        client_max_size=MOST_BODY,
    )
    app[CONTEXT] = context
    api.setup(app)
    login.setup(app)
    pages.setup(app)
    history_pages.setup(app)
    scrapes.setup(app)
    return app


async def serve(settings: Settings, loaded: Loaded) -> None:
    """Serve the console until SIGTERM or SIGINT. Raises CannotListen, LedgerUnusable and
    OSError."""
    ledger = await asyncio.to_thread(open_ledger, settings)
    try:
        # A token that the audit file says was revoked is taken away before the first request.
        await check_at_start(ledger, settings)
    except BaseException:
        await ledger.close()
        raise
    workers = Workers(settings)
    reloading = Reloading(
        settings,
        planned(loaded),
        loaded.origin,
        process="console",
        secrets_of=(),
        make=planned,
    )
    context = Context(
        settings=settings,
        ledger=ledger,
        sessions=Sessions(ledger),
        workers=workers,
        plan=lambda: reloading.current,
    )
    stop = asyncio.Event()
    on_signals(stop=stop.set, reload=reloading.hurry)
    runner = Runner(assemble(context), settings)
    await runner.setup()
    port = settings.console_port or 0
    await web.SockSite(runner, listen(settings.console_host, port, share=False)).start()
    host, port = runner.addresses[0][:2]
    url = settings.console_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    log.info("console.started", url=url, config=loaded.origin.version)
    watching = asyncio.create_task(reloading.run())
    try:
        await stop.wait()
    finally:
        watching.cancel()
        await runner.cleanup()
        await workers.close()
        await ledger.close()
    log.info("console.stopped")
