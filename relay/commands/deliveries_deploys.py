"""The commands `deliveries` and `deploys`: list, show, replay, cancel, and of deploys approve and
dismiss."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from config.loading import load
from config.settings import load_settings
from relay.commands.bulk_actions import ActOptions, Choose, Verb, act_on, chosen_by
from relay.commands.filters import filters
from relay.commands.ledger_access import open_ledger
from relay.commands.options import CONFIG, JSON
from relay.commands.terminal import terminal
from relay.console.words import PLURALS
from relay.events.deploy_life import REPLAYABLE
from relay.events.ids import row_number
from relay.ledger.approve import approve_deploy
from relay.ledger.cancel import cancel_delivery, cancel_deploy
from relay.ledger.details import Details, read_details
from relay.ledger.dismiss import dismiss_deploy
from relay.ledger.filters import Filter
from relay.ledger.lists import Listed, list_records
from relay.ledger.payloads import read_payload
from relay.ledger.records import RecordKind
from relay.ledger.replay import replay_delivery, replay_deploy
from relay.ledger.transaction import Reader
from relay.payload_text import whole
from relay.tables import coloured_table, sheet, table

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only print what would be done.")
_YES = click.option("--yes", "-y", is_flag=True, help="Do not ask before acting on a filter.")
_FORCE = click.option(
    "--force",
    is_flag=True,
    help="Also where something newer is live, or the deploy has not failed.",
)

_NOTHING = Filter()


def record_group(kind: RecordKind) -> click.Group:
    """Return the group of commands for one kind."""
    verbs = "list, show, replay, cancel, approve and dismiss"
    if kind == "delivery":
        verbs = "list, show, replay and cancel"
    group = click.Group(PLURALS[kind], help=f"{verbs.capitalize()} {PLURALS[kind]}.")
    for command in (_list(kind), _show(kind), _replay(kind), _cancel(kind)):
        group.add_command(command)
    if kind == "deploy":
        group.add_command(_approve())
        group.add_command(_dismiss())
    return group


def _list(kind: RecordKind) -> click.Command:
    @click.command("list")
    @filters(kind, limit=50)
    @JSON
    def run(chosen: Filter, limit: int, as_json: bool) -> None:
        """Print the newest, one a line."""

        async def read() -> Listed:
            async with open_ledger(load_settings()) as ledger:
                return await ledger.read(lambda reader: list_records(reader, kind, chosen, limit))

        listed = asyncio.run(read())
        console = terminal()
        if as_json:
            for record in listed.records:
                click.echo(msgspec.json.encode(record))
        elif console is not None:
            # An id that is longer than the terminal is wide is still whole.
            console.print(coloured_table(kind, listed.records, console.width), crop=False)
        else:
            click.echo(table(kind, listed.records))
        if listed.next:
            click.echo("there are more: narrow it down, or raise --limit", err=True)

    return run


def _show(kind: RecordKind) -> click.Command:
    @click.command("show")
    @click.argument("id_", metavar="ID")
    @JSON
    def run(id_: str, as_json: bool, payload: bool = False) -> None:
        """Print everything about one, without secrets and URLs."""
        if payload:
            click.echo(whole(asyncio.run(_payload(id_))))
            return

        async def read() -> Details | None:
            async with open_ledger(load_settings()) as ledger:
                return await ledger.read(lambda reader: read_details(reader, kind, id_))

        details = asyncio.run(read())
        if details is None:
            raise click.ClickException(unknown(kind, id_))
        click.echo(msgspec.json.encode(as_builtins(details)) if as_json else sheet(details))

    if kind == "delivery":
        return click.option(
            "--payload", is_flag=True, help="Print the payload of the webhook, secrets redacted."
        )(run)
    return run


async def _payload(id_: str) -> bytes:
    """Return the payload of a delivery. Raises ClickException where the ledger has none of this id,
    NoSuchThing where it is not kept."""
    number = row_number("delivery", id_)
    if number is None:
        raise click.ClickException(unknown("delivery", id_))
    async with open_ledger(load_settings()) as ledger:
        folder = ledger.folder
        return await ledger.read(lambda reader: read_payload(reader, folder, number))


def unknown(kind: RecordKind, id_: str) -> str:
    """Return the message for an id that the ledger does not have."""
    text = f"no {kind} has the id {id_}"
    if row_number(kind, id_) is None:
        return f"{text}: the ids of {PLURALS[kind]} look like {kind}-12"
    return f"{text}, or retention has deleted it: try deploy-relay audit query --{kind} {id_}"


def as_builtins(details: Details) -> dict[str, Any]:
    """Return details as JSON has them: the fields of the record, then its attempts and the rest."""
    fields: dict[str, Any] = msgspec.to_builtins(details)
    record, calls, live = fields.pop("record"), fields.pop("attempts"), fields.pop("live")
    return {**record, **fields, "calls": calls, "now_live": live}


def _replay(kind: RecordKind) -> click.Command:
    @click.command("replay")
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @filters(kind, limit=1_000)
    @CONFIG
    @_FORCE
    @_DRY_RUN
    @_YES
    @JSON
    def run(
        ids: tuple[str, ...],
        chosen: Filter,
        limit: int,
        config: Path | None,
        force: bool,
        dry_run: bool,
        yes: bool,
        as_json: bool,
    ) -> None:
        """Call again what failed, is uncertain or was cancelled: IDs, or all that match a filter.

        A replay is a deploy of its own, linked to the old one. Where something newer is live it
        says what would be undone, and needs --force.
        """
        options = ActOptions(dry_run, yes, force, as_json)
        if kind == "delivery":
            verb = Verb("replay", "replayed", replay_delivery)
            act_on(kind, verb, ids, _failed_deliveries(chosen), limit, options)
            return
        targets = load(load_settings(config=config).config, secrets_of=()).config.targets
        if not chosen.statuses:
            chosen = msgspec.structs.replace(chosen, statuses=frozenset(REPLAYABLE))
        verb = Verb("replay", "replayed", partial(replay_deploy, targets=targets))
        act_on(kind, verb, ids, chosen_by(kind, chosen), limit, options)

    if kind == "delivery":
        run.help = (
            "Route again, by the current routes, deliveries with a deploy that failed, is "
            "uncertain or was cancelled: the IDs, or all that match a filter.\n\n"
            "A replay is a delivery of its own, linked to the old one. Where something newer is "
            "live it says what would be undone, and needs --force."
        )
    return run


def _failed_deliveries(chosen: Filter) -> Choose:
    """Return a function that reads deliveries to replay: without a status those with a deploy that
    may be replayed."""
    if chosen.statuses:
        return chosen_by("delivery", chosen)
    of_deploys = msgspec.structs.replace(chosen, statuses=frozenset(REPLAYABLE))

    async def choose(reader: Reader, limit: int) -> list[int]:
        numbers: dict[int, None] = {}
        place = ""
        while len(numbers) < limit:
            page = await list_records(reader, "deploy", of_deploys, limit, place)
            numbers |= dict.fromkeys(
                row_number("delivery", record.delivery) or 0
                for record in page.records
                if not record.replayed_by
            )
            place = page.next
            if not place:
                break
        return sorted(numbers, reverse=True)[:limit]

    return choose


def _cancel(kind: RecordKind) -> click.Command:
    @click.command("cancel")
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @filters(kind, limit=1_000)
    @_DRY_RUN
    @_YES
    def run(ids: tuple[str, ...], chosen: Filter, limit: int, dry_run: bool, yes: bool) -> None:
        """Cancel what waits: the IDs, or all that match a filter.

        The audit lines are written to standard error.
        """
        waiting = "queued" if kind == "delivery" else "waiting"
        if not chosen.statuses:
            chosen = msgspec.structs.replace(chosen, statuses=frozenset({waiting}))
        act = cancel_delivery if kind == "delivery" else cancel_deploy
        verb = Verb("cancel", "cancelled", act)
        act_on(kind, verb, ids, chosen_by(kind, chosen), limit, ActOptions(dry_run, yes))

    return run


def _approve() -> click.Command:
    @click.command("approve")
    @click.argument("ids", metavar="ID...", nargs=-1, required=True)
    @CONFIG
    @_FORCE
    @_DRY_RUN
    @JSON
    def run(
        ids: tuple[str, ...], config: Path | None, force: bool, dry_run: bool, as_json: bool
    ) -> None:
        """Approve deploys whose target has `approval: required`, so that they are called.

        Where a newer one was called since, it says what would be undone, and needs --force.
        """
        targets = load(load_settings(config=config).config, secrets_of=()).config.targets
        verb = Verb("approve", "approved", partial(approve_deploy, targets=targets))
        options = ActOptions(dry_run, yes=True, force=force, as_json=as_json)
        act_on("deploy", verb, ids, chosen_by("deploy", _NOTHING), 0, options)

    return run


def _dismiss() -> click.Command:
    @click.command("dismiss")
    @click.argument("ids", metavar="ID...", nargs=-1, required=True)
    @click.option("--reason", required=True, help="Kept with the deploy and in the audit.")
    @_DRY_RUN
    def run(ids: tuple[str, ...], reason: str, dry_run: bool) -> None:
        """Dismiss failed and uncertain deploys that a person has looked into."""
        verb = Verb("dismiss", "dismissed", partial(dismiss_deploy, reason=reason))
        options = ActOptions(dry_run, yes=True)
        act_on("deploy", verb, ids, chosen_by("deploy", _NOTHING), 0, options)

    return run
