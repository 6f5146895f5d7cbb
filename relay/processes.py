"""`up`: the embedded server, the receiver and the worker as children of one process."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping

from config.settings import Settings
from relay.audit import log
from relay.embedded import NoEmbeddedServer, in_use, server_command, wait_until_ready
from relay.supervisor import ChildDied, Supervisor

Meanwhile = Callable[[], Awaitable[bool]]


async def run_all(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    on_line: Callable[[str, str], None] | None = None,
    meanwhile: Meanwhile | None = None,
) -> None:
    """Run everything until SIGTERM or SIGINT, then stop the receiver, the worker and the server.

    ``environ`` is added to the children's environment. ``meanwhile`` runs beside them, and when it
    returns false everything is stopped. Raises ChildDied, NoEmbeddedServer.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # A child finishes what is in flight within its own grace; only then is it killed.
    supervisor = Supervisor(grace=settings.shutdown_grace + 5, on_line=on_line)
    try:
        address = await _start_server(settings, supervisor)
        children = {**environ, "RELAY_REDIS_URL": address}
        # -P keeps folders named relay or config in the working directory out of the way.
        python = [sys.executable, "-P", "-m", "relay.cli"]
        await supervisor.start("worker", [*python, "worker"], children)
        await supervisor.start("receiver", [*python, "serve"], children)
        await _until_stopped(supervisor, stop, meanwhile)
    finally:
        await supervisor.stop()
    log.info("relay.stopped")


async def _start_server(settings: Settings, supervisor: Supervisor) -> str:
    if settings.redis_url is not None:
        return settings.redis_address()
    socket = settings.embedded_socket
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if await in_use(socket):
        raise NoEmbeddedServer(f"another relay already uses {socket.parent}")
    await supervisor.start("redis", server_command(socket, settings.embedded_fsync))
    waiting = asyncio.ensure_future(wait_until_ready(socket))
    watching = asyncio.ensure_future(supervisor.wait())
    await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
    if watching.done():
        waiting.cancel()
        watching.exception()
        raise ChildDied(f"the embedded server ended; see {socket.with_name('server.log')}")
    watching.cancel()
    waiting.result()
    return settings.redis_address()


async def _until_stopped(
    supervisor: Supervisor, stop: asyncio.Event, meanwhile: Meanwhile | None
) -> None:
    stopping = asyncio.create_task(stop.wait())
    dying = asyncio.create_task(supervisor.wait())
    tasks: set[asyncio.Task[object]] = {stopping, dying}
    beside = None
    if meanwhile is not None:
        beside = asyncio.ensure_future(meanwhile())
        tasks.add(beside)
    try:
        while True:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if dying in done:
                dying.result()
            if stopping in done or (beside is not None and beside.done() and not beside.result()):
                return
    finally:
        for task in (stopping, dying, beside):
            if task is not None:
                task.cancel()
