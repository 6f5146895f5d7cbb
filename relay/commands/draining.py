"""The command `drain`: wait until the queue is worked off."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from config.values import parse_duration
from relay.commands.acting import INTERRUPTED, archive_of_queue, interruption
from relay.commands.exits import exits
from relay.commands.terminal import terminal
from relay.draining import Later, Left, read_later, read_left
from relay.reading import iso

LOOK = 0.5
"""Seconds between two looks."""

LINE = 5.0
"""Seconds between two lines, where no terminal is."""


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else float(parse_duration(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--timeout", callback=_seconds, help="30s, 10m, 2h; waits for ever if left out.")
@click.option("--all", "everything", is_flag=True, help="Wait for what waits for its time, too.")
@exits
def drain(timeout: float | None, everything: bool) -> None:
    """Wait until nothing is queued and nothing runs, as before a maintenance.

    What waits for a time or a person (hours, an approval, a paused target, another attempt) is told
    at the end and not waited for. Nothing is held back: what comes in meanwhile is waited for, too.
    Exit 0 once it is so, 1 after the timeout.
    """
    left, later, is_interrupted = asyncio.run(_drain(timeout, everything))
    done = _is_done(left, everything)
    if done:
        click.echo("drained: nothing is queued, nothing runs")
    else:
        how = "stopped" if is_interrupted else f"not drained after {timeout or 0:g} s"
        click.echo(f"{how}: {_said(left, everything)}", err=True)
    if later.reasons:
        click.echo(_said_later(later))
    if not done:
        sys.exit(INTERRUPTED if is_interrupted else 1)


async def _drain(patience: float | None, everything: bool) -> tuple[Left, Later, bool]:
    """What is left in the end, what waits for its time then, and whether Ctrl-C was the end."""
    until = math.inf if patience is None else time.monotonic() + patience
    async with archive_of_queue() as (_, redis, settings):
        with interruption() as interrupted, _progress(everything) as tell:
            while True:
                left = await read_left(redis, settings)
                tell(left)
                pause = min(LOOK, until - time.monotonic())
                if _is_done(left, everything) or pause <= 0 or interrupted.is_set():
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await interrupted.wait()
        return left, await read_later(redis, settings.queue), interrupted.is_set()


@contextmanager
def _progress(everything: bool) -> Iterator[Callable[[Left], None]]:
    """Tells on standard error how far it is: a bar on a terminal, a line now and then elsewhere."""
    console = terminal(error=True)
    if console is None:
        yield _lines(everything)
        return
    shown = (TextColumn("drain"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*shown, TextColumn("{task.description}"), console=console) as bar:
        task, most = bar.add_task(""), 1

        def tell(left: Left) -> None:
            nonlocal most
            number = _number(left, everything)
            most = max(most, number)
            bar.update(
                task, total=most, completed=most - number, description=_said(left, everything)
            )

        yield tell


def _lines(everything: bool) -> Callable[[Left], None]:
    last, at = "", -math.inf

    def tell(left: Left) -> None:
        nonlocal last, at
        text, now = _said(left, everything), time.monotonic()
        if text != last and now - at >= LINE and not _is_done(left, everything):
            click.echo(text, err=True)
            last, at = text, now

    return tell


def _is_done(left: Left, everything: bool) -> bool:
    return not _number(left, everything) and not left.spooled


def _number(left: Left, everything: bool) -> int:
    return left.jobs + left.later * everything


def _said(left: Left, everything: bool) -> str:
    text = f"{left.queued} queued, {left.limited} for a slot, {left.running} running"
    text += f", {left.later} for their time" * everything
    text += f", {left.spooled} bytes in the spool" * bool(left.spooled)
    return text + ", and no worker is alive" * (not left.workers and not _is_done(left, everything))


def _said_later(later: Later) -> str:
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(later.reasons.items()))
    if later.more:
        reasons += ", and more"
    next_at = f"{iso(later.next_at)[:19]}Z"
    return f"for a time or a person wait: {reasons}; the first is looked at again at {next_at}"
