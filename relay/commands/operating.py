"""The commands `deliveries` and `deploys`: list, show, replay, cancel, and of deploys approve."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import click
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.settings import Settings, load_settings
from relay import audit
from relay.approving import approve
from relay.archive import Archive, Filter
from relay.audit_file import audit_file
from relay.cancelling import cancel
from relay.commands.filters import filtered, filters
from relay.commands.options import JSON
from relay.commands.terminal import terminal
from relay.errors import StoreUnavailable
from relay.reading import Record, record_fields
from relay.replays import REASONS, Done, Wish
from relay.statuses import REPLAYABLE, Kind, Status
from relay.store import connect_async
from relay.tables import brief, coloured_table, sheet, table

PLURALS: dict[Kind, str] = {"delivery": "deliveries", "deploy": "deploys"}

Act = Callable[[Redis, Settings, Sequence[Wish]], Awaitable[list[Done]]]

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only print what would be done.")
_YES = click.option("--yes", "-y", is_flag=True, help="Do not ask before acting on a filter.")


def operating(kind: Kind, replay: Act) -> click.Group:
    """The group of commands for one kind. ``replay`` does what its name says."""
    verbs = "List, show, replay" + (", cancel and approve" if kind == "deploy" else " and cancel")
    group = click.Group(PLURALS[kind], help=f"{verbs} {PLURALS[kind]}.")
    for command in (_list(kind), _show(kind), _replay(kind, replay), _cancel(kind)):
        group.add_command(command)
    if kind == "deploy":
        group.add_command(_approve())
    return group


def _list(kind: Kind) -> click.Command:
    @click.command("list")
    @filters(kind, limit=50)
    @JSON
    def run(wanted: Filter, limit: int, as_json: bool) -> None:
        """Print the newest, one a line."""

        async def read() -> tuple[list[Record], bool]:
            async with _archive() as (archive, _, _):
                found = await archive.find(kind, wanted, limit)
                return await archive.read(kind, found.ids), found.more

        records, more = asyncio.run(read())
        console = terminal()
        if as_json:
            for record in records:
                click.echo(msgspec.json.encode(record))
        elif console is not None:
            console.print(coloured_table(kind, records, console.width), soft_wrap=False)
        else:
            click.echo(table(kind, records))
        if more:
            click.echo("there are more: narrow it down, or raise --limit", err=True)

    return run


def _show(kind: Kind) -> click.Command:
    @click.command("show")
    @click.argument("id_", metavar="ID")
    @JSON
    def run(id_: str, as_json: bool) -> None:
        """Print all that is known of one. It holds no secret and no URL."""

        async def read() -> tuple[Any, list[Record]]:
            async with _archive() as (archive, _, _):
                details = await archive.details(kind, id_)
                deploys = await archive.read("deploy", details.record.deploys) if details else []
                return details, deploys

        details, deploys = asyncio.run(read())
        if details is None:
            raise click.ClickException(_why(kind, Done(id_, refusal="unknown")))
        if as_json:
            told = {
                **msgspec.to_builtins(details.record),
                "deploys": deploys,
                "event": details.event,
                "runs": [run._asdict() for run in details.runs],
            }
            click.echo(msgspec.json.encode(told))
        else:
            click.echo(sheet(details, deploys))

    return run


def _replay(kind: Kind, replay: Act) -> click.Command:
    @click.command("replay")
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @filters(kind, limit=1_000)
    @click.option("--force", is_flag=True, help="Also what has not failed, or was overtaken.")
    @_DRY_RUN
    @_YES
    def run(
        ids: tuple[str, ...], wanted: Filter, limit: int, force: bool, dry_run: bool, yes: bool
    ) -> None:
        """Do again what failed, was held, stopped or cancelled: the IDs, or what a filter finds.

        A replay is a job of its own, linked to the old one. A filter leaves out what a newer
        deploy of the same branch has overtaken.
        """
        _act(
            *(kind, replay, "replay", ids),
            *(wanted if wanted.statuses else wanted._replace(statuses=REPLAYABLE), limit),
            force=force,
            dry_run=dry_run,
            yes=yes,
        )

    if kind == "delivery":
        run.help = (
            "Match again, with the routes of now, what failed, was held, stopped or cancelled: the "
            "IDs, or what a filter finds.\n\nA replay is a job of its own, linked to the old one. "
            "All its deploys are made, but for those that wait or run already."
        )
    return run


def _cancel(kind: Kind) -> click.Command:
    @click.command("cancel")
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @filters(kind, limit=1_000)
    @_DRY_RUN
    @_YES
    def run(ids: tuple[str, ...], wanted: Filter, limit: int, dry_run: bool, yes: bool) -> None:
        """Cancel what waits: the IDs, or what a filter finds.

        No worker sees it, so its audit lines are written here, to standard error.
        """

        async def act(redis: Redis, settings: Settings, wishes: Sequence[Wish]) -> list[Done]:
            return await cancel(redis, settings, kind, wishes)

        waiting: frozenset[Status] = frozenset({"waiting", "retrying"})
        chosen = wanted if wanted.statuses else wanted._replace(statuses=waiting)
        _act(kind, act, "cancel", ids, chosen, limit, dry_run=dry_run, yes=yes)

    return run


def _approve() -> click.Command:
    @click.command("approve")
    @click.argument("ids", metavar="ID...", nargs=-1, required=True)
    @_DRY_RUN
    def run(ids: tuple[str, ...], dry_run: bool) -> None:
        """Approve deploys whose target has `approval: required`, so that they are called.

        The worker writes the audit line, with the user who ran this.
        """
        _act("deploy", approve, "approve", ids, Filter(), 0, dry_run=dry_run, yes=True)

    return run


def _act(
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
        async with _archive() as (archive, redis, settings):
            more = False
            chosen: Sequence[str] = list(dict.fromkeys(ids))
            if is_filtered:
                found = await archive.find(kind, wanted, limit)
                # The oldest first, so that the newest is the newest afterwards too.
                chosen, more = found.ids[::-1], found.more
            wishes = [Wish(id_, user, force, not is_filtered, dry=True) for id_ in chosen]
            return await archive.read(kind, chosen), await act(redis, settings, wishes), more

    async def do(chosen: Sequence[str]) -> list[Done]:
        async with _archive() as (_, redis, settings):
            wishes = [Wish(id_, user, force, not is_filtered) for id_ in chosen]
            return await act(redis, settings, wishes)

    records, told, more = asyncio.run(look())
    known = {record.id: record for record in records}
    possible = [done.id for done in told if not done.refusal]
    for done in told:
        if done.refusal:
            click.echo(f"{done.id}: {_why(kind, done)}", err=True)
    if more:
        click.echo(f"there are more than these {len(told)}: raise --limit", err=True)
    if dry_run or (is_filtered and not yes):
        for id_ in possible:
            click.echo(f"would {verb}  {brief(known[id_])}")
    refused = len(told) - len(possible)
    if possible and not dry_run:
        if is_filtered and not yes:
            click.confirm(f"{verb} these {len(possible)} {PLURALS[kind]}?", abort=True)
        results = asyncio.run(do(possible))
        refused += sum(bool(done.refusal) for done in results)
        _tell(kind, verb, user, results, known)
    if refused and not is_filtered:
        sys.exit(1)


def _tell(
    kind: Kind, verb: str, user: str, results: Sequence[Done], known: dict[str, Record]
) -> None:
    """Say what was done. The audit of a replay or an approval is the worker's, who goes by it; that
    of what was cancelled is ours, as no worker sees it, and does not mix with what the command
    prints."""
    if verb == "cancel":
        stderr = sys.stderr.buffer
        settings = load_settings()
        audit.configure(
            stream=getattr(stderr, "raw", stderr),
            style=settings.log_format,
            file=audit_file(settings),
        )
    for done in results:
        if done.refusal:
            click.echo(f"{done.id}: {_why(kind, done)}", err=True)
        elif verb == "cancel":
            audit.log.info(f"{kind}.cancelled", by=user, **record_fields(kind, known[done.id]))
            click.echo(f"{done.id} is cancelled")
        elif verb == "approve":
            click.echo(f"{done.id} is approved")
        else:
            click.echo(f"{done.id} is replayed as {done.new}")


def _why(kind: Kind, done: Done) -> str:
    return REASONS[done.refusal].format(kind=kind, other=done.other)


def _user() -> str:
    """The user of the operating system who runs this."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@asynccontextmanager
async def _archive() -> AsyncIterator[tuple[Archive, Redis, Settings]]:
    """Raises StoreUnavailable where Redis does not answer. A command whose answer got lost is not
    repeated; to ask again does no harm."""
    settings = load_settings()
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout, repeats=False)
    try:
        yield Archive(redis, settings.queue), redis, settings
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis is not reachable ({type(error).__name__})") from None
    finally:
        await redis.aclose()
