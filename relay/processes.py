"""`up`: the embedded server, the worker, the receiver and the console, children of one process."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from config.settings import Settings
from relay.audit import log
from relay.embedded import NoEmbeddedServer, in_use, server_command, wait_until_ready
from relay.http.listen import listen
from relay.signals import on_signals
from relay.supervisor import ChildDied, Supervisor

# -P keeps folders named relay or config in the working directory out of the way.
_COMMAND = (sys.executable, "-P", "-m", "relay.cli")

Meanwhile = Callable[[], Awaitable[bool]]


async def run_all(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    on_line: Callable[[str, str], None] | None = None,
    meanwhile: Meanwhile | None = None,
) -> None:
    """Run everything until SIGTERM or SIGINT, then stop what was started last first.

    ``environ`` is added to the children's environment. ``meanwhile`` runs beside them, and when it
    returns false everything is stopped. Raises ChildDied, NoEmbeddedServer.
    """
    supervisor = _supervisor(settings, on_line)
    stop = _stop_on_signals(supervisor)
    try:
        address = await _start_server(settings, supervisor, stop)
        children = {**environ, "RELAY_REDIS_URL": address}
        if not stop.is_set():
            await supervisor.start("worker", [*_COMMAND, "worker"], children)
            with _one_port(settings) as same:
                await _start_receivers(settings, supervisor, {**children, **same})
                if settings.console_port is not None:
                    await supervisor.start("console", [*_COMMAND, "console"], children)
                await _until_stopped(supervisor, stop, meanwhile)
    finally:
        await supervisor.stop()
    log.info("relay.stopped")


async def run_receivers(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run several receivers on one port until SIGTERM or SIGINT. Raises ChildDied."""
    supervisor = _supervisor(settings, None)
    stop = _stop_on_signals(supervisor)
    try:
        with _one_port(settings) as same:
            await _start_receivers(settings, supervisor, {**environ, **same})
            await _until_stopped(supervisor, stop, None)
    finally:
        await supervisor.stop()


def _stop_on_signals(supervisor: Supervisor) -> asyncio.Event:
    stop = asyncio.Event()

    def reload() -> None:
        supervisor.pass_on(signal.SIGHUP, ("worker", "receiver", "console"))

    on_signals(stop=stop.set, reload=reload)
    return stop


def _supervisor(settings: Settings, on_line: Callable[[str, str], None] | None) -> Supervisor:
    # A child finishes what is in flight within its own grace; only then is it killed.
    return Supervisor(grace=settings.shutdown_grace + 5, on_line=on_line)


@contextmanager
def _one_port(settings: Settings) -> Iterator[Mapping[str, str]]:
    """What the receivers' environment lacks for them to take one and the same free port.

    Raises CannotListen where another program has the port.
    """
    if settings.processes == 1:
        yield {}
        return
    if settings.port:
        # Children that share the port with each other would share it with a stranger too.
        listen(settings.host, settings.port, share=False).close()
        yield {}
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((settings.host, 0))
        yield {"RELAY_PORT": str(reserved.getsockname()[1])}


async def _start_receivers(
    settings: Settings, supervisor: Supervisor, environ: Mapping[str, str]
) -> None:
    share = ["--share-port"] if settings.processes > 1 else []
    for _ in range(settings.processes):
        await supervisor.start("receiver", [*_COMMAND, "serve", "--processes=1", *share], environ)


async def _start_server(settings: Settings, supervisor: Supervisor, stop: asyncio.Event) -> str:
    """The server's address, once it answers or ``stop`` is set."""
    if settings.redis_url is not None:
        return settings.redis_address()
    path = settings.embedded_socket
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if await in_use(path):
        raise NoEmbeddedServer(f"another relay already uses {path.parent}")
    await supervisor.start("redis", server_command(path))
    waiting = asyncio.ensure_future(wait_until_ready(path))
    watching = asyncio.ensure_future(supervisor.wait())
    stopping = asyncio.ensure_future(stop.wait())
    tasks = {waiting, watching, stopping}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    ended, ready = watching.done(), waiting.done()
    if ended:
        watching.exception()
    if ready and not ended:
        waiting.result()
    for task in tasks:
        task.cancel()
    if ended:
        raise ChildDied(f"the embedded server ended; see {path.with_name('server.log')}")
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
