"""The commands `deliveries` and `deploys`: list, show, replay, cancel, and of deploys approve."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click
import msgspec
from redis.asyncio import Redis

from config.settings import Settings
from relay.approving import approve
from relay.cancelling import cancel
from relay.commands.acting import PLURALS, Act, act_on, archive_of_queue
from relay.commands.filters import filters
from relay.commands.options import JSON
from relay.commands.recalling import recall
from relay.commands.terminal import terminal
from relay.filtering import Filter
from relay.reading import Record
from relay.replays import Done, Wish
from relay.statuses import REPLAYABLE, Kind, Status
from relay.tables import coloured_table, sheet, table

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
            async with archive_of_queue() as (archive, _, _):
                found = await archive.find(kind, wanted, limit)
                return await archive.read(kind, found.ids), found.more

        records, more = asyncio.run(read())
        console = terminal()
        if as_json:
            for record in records:
                click.echo(msgspec.json.encode(record))
        elif console is not None:
            # An id that is longer than the terminal is wide is still whole.
            console.print(coloured_table(kind, records, console.width), crop=False)
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
        """Print all that is known of one. It holds no secret and no URL.

        Of one that Redis does not have any more, it prints the lines of the audit file.
        """

        async def read() -> tuple[Any, list[Record]]:
            async with archive_of_queue() as (archive, _, _):
                details = await archive.details(kind, id_)
                deploys = await archive.read("deploy", details.record.deploys) if details else []
                return details, deploys

        details, deploys = asyncio.run(read())
        if details is None:
            recall(kind, id_, as_json=as_json)
        elif as_json:
            told = {
                **msgspec.to_builtins(details.record),
                "deploys": deploys,
                "event": details.event,
                "runs": [run._asdict() for run in details.runs],
                "calls": details.calls,
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
        act_on(
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
        act_on(kind, act, "cancel", ids, chosen, limit, dry_run=dry_run, yes=yes)

    return run


def _approve() -> click.Command:
    @click.command("approve")
    @click.argument("ids", metavar="ID...", nargs=-1, required=True)
    @_DRY_RUN
    def run(ids: tuple[str, ...], dry_run: bool) -> None:
        """Approve deploys whose target has `approval: required`, so that they are called.

        The worker writes the audit line, with the user who ran this.
        """
        act_on("deploy", approve, "approve", ids, Filter(), 0, dry_run=dry_run, yes=True)

    return run
