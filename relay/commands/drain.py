"""The command `drain`: wait until the relay has nothing to do."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from config.settings import load_settings
from config.values import parse_duration
from relay.commands.bulk_actions import INTERRUPTED, interruption
from relay.commands.exits import exits
from relay.commands.ledger_access import open_ledger
from relay.commands.terminal import terminal
from relay.events.gate import moment
from relay.ledger.work_left import Remaining, read_remaining

LOOK = 0.5
"""Seconds between two looks."""

_BEHIND = "the ledger went back in time: nothing is called until you run deploy-relay ledger accept"

LINE = 5.0
"""Seconds between two lines where standard error is no terminal."""


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else float(parse_duration(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--timeout", callback=_seconds, help="30s, 10m, 2h; waits for ever if left out.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also wait for deploys that wait for a time or a person.",
)
@exits
def drain(timeout: float | None, everything: bool) -> None:
    """Wait until nothing is queued and nothing is being called, as before a maintenance.

    Deploys that wait for a time or a person (hours, an approval, a paused target, a retry) are
    counted at the end, not waited for. Webhooks are still accepted, and waited for too. Exit 0 when
    drained, 1 after the timeout.
    """
    left, is_interrupted = asyncio.run(_drain(timeout, everything))
    is_done = not _number(left, everything)
    if is_done:
        click.echo("drained: nothing is queued, nothing is being called")
    else:
        how = "stopped" if is_interrupted else f"not drained after {timeout or 0:g} s"
        click.echo(f"{how}: {_said(left, everything)}", err=True)
    if left.later:
        click.echo(_said_later(left))
    if not is_done:
        sys.exit(INTERRUPTED if is_interrupted else 1)


async def _drain(patience: float | None, everything: bool) -> tuple[Remaining, bool]:
    """Return what is left, and whether Ctrl-C ended the wait."""
    until = math.inf if patience is None else time.monotonic() + patience
    async with open_ledger(load_settings()) as ledger:
        if await ledger.refresh():
            click.echo(_BEHIND, err=True)
        with interruption() as interrupted, _progress(everything) as tell:
            while True:
                left = await ledger.read(read_remaining)
                tell(left)
                pause = min(LOOK, until - time.monotonic())
                if not _number(left, everything) or pause <= 0 or interrupted.is_set():
                    return left, interrupted.is_set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await interrupted.wait()


@contextmanager
def _progress(everything: bool) -> Iterator[Callable[[Remaining], None]]:
    """Yield a function that shows the progress: a bar on a terminal, elsewhere lines."""
    console = terminal(error=True)
    if console is None:
        yield _lines(everything)
        return
    shown = (TextColumn("drain"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*shown, TextColumn("{task.description}"), console=console) as bar:
        task, most = bar.add_task(""), 1

        def tell(left: Remaining) -> None:
            nonlocal most
            number = _number(left, everything)
            most = max(most, number)
            bar.update(
                task, total=most, completed=most - number, description=_said(left, everything)
            )

        yield tell


def _lines(everything: bool) -> Callable[[Remaining], None]:
    last, at = "", -math.inf

    def tell(left: Remaining) -> None:
        nonlocal last, at
        text, now = _said(left, everything), time.monotonic()
        if text != last and now - at >= LINE and _number(left, everything):
            click.echo(text, err=True)
            last, at = text, now

    return tell


def _number(left: Remaining, everything: bool) -> int:
    return left.active + sum(left.later.values()) * everything


def _said(left: Remaining, everything: bool) -> str:
    text = f"{left.queued} queued, {left.limited} for a slot, {left.running} being called"
    return text + f", {sum(left.later.values())} for their time" * everything


def _said_later(left: Remaining) -> str:
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(left.later.items()))
    next_at = moment(left.next_at)
    return f"for a time or a person wait: {reasons}; the first is looked at again at {next_at}"
