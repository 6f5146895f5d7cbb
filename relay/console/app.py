"""The console as a process: assembles it, serves, and stops cleanly."""

from __future__ import annotations

import asyncio

from aiohttp import web

from config.loading import Loaded
from config.settings import Settings
from relay.archive import Archive
from relay.audit import log
from relay.console import api, faults, history_pages, login, pages, scrapes
from relay.console.access import admit
from relay.console.context import CONTEXT, Context, planned
from relay.console.history import History
from relay.console.listening import Runner
from relay.console.powers import Powers
from relay.console.sessions import Sessions
from relay.http.listen import listen
from relay.reloading import Reloading
from relay.signals import on_signals
from relay.store import connect_async

MOST_BODY = 1_048_576
"""Bytes of a request's body, where a handler does not allow more."""


def assemble(context: Context) -> web.Application:
    """The whole console."""
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


async def serve(settings: Settings, loaded: Loaded, powers: Powers) -> None:
    """Serve the console until SIGTERM or SIGINT. Raises CannotListen."""
    address, timeout = settings.redis_address(), settings.store_timeout
    redis = connect_async(address, timeout=timeout)
    redis_once = connect_async(address, timeout=timeout, repeats=False)
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
        redis=redis,
        redis_once=redis_once,
        archive=Archive(redis, settings.queue),
        history=History(settings.audit_file),
        powers=powers,
        sessions=Sessions(redis),
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
        await redis.aclose()
        await redis_once.aclose()
    log.info("console.stopped")
