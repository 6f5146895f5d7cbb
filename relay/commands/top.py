"""The command `top`: an overview of the relay, read again each second."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.live import Live

from config.loading import load
from config.settings import Settings, load_settings
from relay.commands.exits import exits
from relay.commands.ledger_access import open_ledger
from relay.commands.options import CONFIG
from relay.commands.terminal import print_plainly, terminal
from relay.errors import LedgerUnavailable
from relay.frame import frame
from relay.ledger.overview import Overview, read_overview
from relay.ledger.pace import Pace
from relay.worker_list import Workers

Read = Callable[[], Awaitable[Overview]]


@click.command()
@CONFIG
@click.option("--once", is_flag=True, help="Print one frame, as without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one frame as JSON.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3_600),
    default=1.0,
    show_default=True,
    help="Seconds between two frames.",
)
@exits
def top(config: Path | None, once: bool, as_json: bool, interval: float) -> None:
    """Show rates, the queue, workers, targets and what needs a person. q quits.

    It reads a few numbers each second and changes nothing.
    """
    settings = load_settings(config=config)
    console = terminal()
    if as_json or once or console is None:
        overview = asyncio.run(_once(settings))
        if as_json:
            click.echo(msgspec.json.encode(overview))
        elif console is None:
            print_plainly(frame(overview, width=1_000, height=None))
        else:
            console.print(frame(overview, width=console.width, height=None))
    else:
        asyncio.run(_watch(settings, console, interval))


async def _once(settings: Settings) -> Overview:
    async with _reader(settings) as read:
        return await read()


async def _watch(settings: Settings, console: Console, interval: float) -> None:
    """Show frames until a key or a signal ends it. The first one must come; after it
    the last frame stays with a note where the ledger cannot be read."""
    loop, wake = asyncio.get_running_loop(), asyncio.Event()
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        wake.set()

    async with _reader(settings) as read:
        overview, note = await read(), ""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGWINCH, wake.set)
        due = loop.time() + interval
        with _keys(loop, end), Live(console=console, screen=True, auto_refresh=False) as live:
            while not ended:
                shown_note = note or f"every {interval:g} s, q quits"
                size = console.size
                live.update(
                    frame(overview, width=size.width, height=size.height, note=shown_note),
                    refresh=True,
                )
                wake.clear()
                try:
                    # A key or another size of the terminal does not make the ledger be read again.
                    async with asyncio.timeout_at(due):
                        await wake.wait()
                    continue
                except TimeoutError:
                    due = loop.time() + interval
                try:
                    overview, note = await read(), ""
                except LedgerUnavailable as error:
                    note = str(error)


@contextmanager
def _keys(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> Iterator[None]:
    """Have q, and the end of the input, call ``end``."""
    number = sys.stdin.fileno()
    if not os.isatty(number):
        yield
        return

    def read() -> None:
        typed = os.read(number, 1_024)
        if not typed or b"q" in typed.lower():
            end()

    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[Read]:
    """Reads an overview, by the current relay.yaml. It raises LedgerUnavailable."""
    targets = load(settings.config, secrets_of=()).config.targets
    workers, pace = Workers(settings), Pace()
    try:
        async with open_ledger(settings) as ledger:

            async def read() -> Overview:
                alive = await workers.read()
                return await ledger.read(lambda reader: read_overview(reader, targets, alive, pace))

            yield read
    finally:
        await workers.close()
