"""How commands act on deliveries and deploys: on which, in batches, and what they say of it."""

from __future__ import annotations

import asyncio
import io
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, BinaryIO, cast

import click
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from config.errors import RelayError
from config.settings import Settings, load_settings
from relay import audit
from relay.archive import Archive
from relay.audit_file import audit_file
from relay.commands.filters import filtered
from relay.commands.terminal import terminal
from relay.filtering import Filter
from relay.reading import Record, record_fields
from relay.replays import REASONS, Done, Wish
from relay.statuses import Kind
from relay.store import connect_async, unavailable
from relay.tables import brief

PLURALS: dict[Kind, str] = {"delivery": "deliveries", "deploy": "deploys"}

BATCH = 50
"""Jobs that are acted on before it is said what was done, and Ctrl-C is listened to."""

MANY = 2 * BATCH
"""Jobs from which on a bar shows how far it is."""

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

Act = Callable[[Redis, Settings, Sequence[Wish]], Awaitable[list[Done]]]


def act_on(
    kind: Kind,
    act: Act,
    verb: str,
    ids: Sequence[str],
    wanted: Filter,
    limit: int,
    *,
    dry_run: bool,
    yes: bool,
    force: bool = False,
) -> None:
    """Do it to the ids, or to what the filter finds once a person has said yes."""
    is_filtered = filtered()
    if bool(ids) == is_filtered:
        raise click.UsageError("give either IDs or a filter such as --status, --repo or --since")
    user = _user()

    async def look() -> tuple[list[Record], list[Done], bool]:
        async with archive_of_queue() as (archive, redis, settings):
            more = False
            chosen: Sequence[str] = list(dict.fromkeys(ids))
            if is_filtered:
                found = await archive.find(kind, wanted, limit)
                # The oldest first, so that the newest is the newest afterwards too.
                chosen, more = found.ids[::-1], found.more
            wishes = [Wish(id_, user, force, not is_filtered, dry=True) for id_ in chosen]
            return await archive.read(kind, chosen), await act(redis, settings, wishes), more

    records, told, more = asyncio.run(look())
    known = {record.id: record for record in records}
    possible = [done.id for done in told if not done.refusal]
    for done in told:
        if done.refusal:
            click.echo(f"{done.id}: {why(kind, done)}", err=True)
    if more:
        click.echo(f"there are more than these {len(told)}: raise --limit", err=True)
    if is_filtered and not told:
        click.echo(f"the filter finds nothing to {verb}", err=True)
    if dry_run or (is_filtered and not yes):
        for id_ in possible:
            click.echo(f"would {verb}  {brief(known[id_])}")
    refused = len(told) - len(possible)
    if possible and not dry_run:
        if is_filtered and not yes:
            number = len(possible)
            click.confirm(f"{verb} {number} {kind if number == 1 else PLURALS[kind]}?", abort=True)
        wishes = [Wish(id_, user, force, not is_filtered) for id_ in possible]
        refused += _do(kind, act, verb, wishes, known)
    if refused and not is_filtered:
        sys.exit(1)


def _do(
    kind: Kind, act: Act, verb: str, wishes: Sequence[Wish], known: Mapping[str, Record]
) -> int:
    """Do it in batches; returns how many were refused. Ctrl-C ends it after the batch that is under
    way, so that of all that was done it has been said."""
    done = refused = 0
    # What was cancelled has its audit line from here and nowhere else: each before the next one.
    size = 1 if verb == "cancel" else BATCH

    async def run(bar: Progress | None) -> bool:
        nonlocal done, refused
        async with archive_of_queue() as (_, redis, settings):
            with interruption() as interrupted:
                for start in range(0, len(wishes), size):
                    if interrupted.is_set():
                        return False
                    results = await act(redis, settings, wishes[start : start + size])
                    for result in results:
                        _tell(kind, verb, wishes[0].by, result, known)
                    done += len(results)
                    refused += sum(bool(result.refusal) for result in results)
                    if bar is not None:
                        bar.update(bar.task_ids[0], completed=done)
                return True

    is_complete = False
    try:
        with _bar(verb, len(wishes)) as bar:
            if verb == "cancel":
                _audit_to_stderr(bar is not None)
            is_complete = asyncio.run(run(bar))
    except RelayError:
        if done:
            _say_how_far(done, len(wishes))
        raise
    if not is_complete:
        _say_how_far(done, len(wishes))
        sys.exit(INTERRUPTED)
    return refused


def _say_how_far(done: int, of: int) -> None:
    click.echo(f"stopped after {done} of {of}; to ask for all again does no harm", err=True)


def _tell(kind: Kind, verb: str, user: str, done: Done, known: Mapping[str, Record]) -> None:
    """Say what was done. The audit of a replay or an approval is the worker's, who goes by it; that
    of what was cancelled is ours, as no worker sees it, and does not mix with what the command
    prints."""
    if done.refusal:
        click.echo(f"{done.id}: {why(kind, done)}", err=True)
    elif verb == "cancel":
        audit.log.info(f"{kind}.cancelled", by=user, **record_fields(kind, known[done.id]))
        audit.flush()
        click.echo(f"{done.id} is cancelled")
    elif verb == "approve":
        click.echo(f"{done.id} is approved")
    else:
        click.echo(f"{done.id} is replayed as {done.new}")


def why(kind: Kind, done: Done) -> str:
    """Why it was not done, in words."""
    return REASONS[done.refusal].format(kind=kind, other=done.other)


@contextmanager
def interruption() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C sets, instead of interrupting what is under way."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def _bar(verb: str, total: int) -> Iterator[Progress | None]:
    """A bar on standard error, if that is a terminal and the work is long."""
    console = terminal(error=True)
    if console is None or total < MANY:
        yield None
        return
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *(*shown, TimeRemainingColumn()),
        console=console,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        bar.add_task(verb, total=total)
        yield bar


class _AboveBar(io.RawIOBase):
    """Standard error while a bar stands there: rich, who has replaced it, prints above the bar."""

    def write(self, data: Any, /) -> int:
        sys.stderr.write(bytes(data).decode())
        return len(data)


def _audit_to_stderr(below_is_a_bar: bool) -> None:
    stderr = sys.stderr.buffer
    raw = _AboveBar() if below_is_a_bar else getattr(stderr, "raw", stderr)
    settings = load_settings()
    audit.configure(
        stream=cast(BinaryIO, raw), style=settings.log_format, file=audit_file(settings)
    )


def _user() -> str:
    """The user of the operating system who runs this."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@asynccontextmanager
async def archive_of_queue() -> AsyncIterator[tuple[Archive, Redis, Settings]]:
    """Raises StoreUnavailable where Redis does not answer. A command whose answer got lost is not
    repeated; to ask again does no harm."""
    settings = load_settings()
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout, repeats=False)
    try:
        yield Archive(redis, settings.queue), redis, settings
    except (RedisError, OSError) as error:
        raise unavailable(error) from None
    finally:
        await redis.aclose()
