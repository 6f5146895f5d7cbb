"""The commands `targets`: list targets, pause and resume them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec

from config.loading import load
from config.settings import Settings, load_settings
from relay import audit
from relay.audit_fields import action_fields
from relay.commands.exits import exits
from relay.commands.ledger_access import open_ledger
from relay.commands.options import CONFIG, JSON
from relay.commands.setup import configure_audit
from relay.commands.terminal import terminal
from relay.commands.user import user_name
from relay.ledger.actions import Done, Wish
from relay.ledger.overview import TargetSeen, read_targets
from relay.ledger.pause import pause_target, resume_target
from relay.ledger.transaction import Transaction
from relay.tables import coloured_targets


@click.group()
def targets() -> None:
    """List targets, pause and resume them."""


@targets.command(name="list")
@CONFIG
@JSON
@exits
def list_targets(config: Path | None, as_json: bool) -> None:
    """Print the state of each target, and how many of its deploys are called and wait."""
    settings = load_settings(config=config)
    named = load(settings.config, secrets_of=()).config.targets

    async def read() -> list[TargetSeen]:
        async with open_ledger(settings) as ledger:
            return await ledger.read(lambda reader: read_targets(reader, named))

    rows = asyncio.run(read())
    console = terminal()
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row))
        return
    if console is not None:
        console.print(coloured_targets(rows))
        return
    width = max((len(name) for name in named), default=0)
    for row in rows:
        click.echo(f"{row.name:{width}}  {row.calling} calling  {row.waiting} waiting  {row.state}")


@targets.command(name="pause")
@CONFIG
@click.argument("name")
@exits
def pause(config: Path | None, name: str) -> None:
    """Pause target NAME: no call to it begins, and its deploys wait until it is resumed.

    Calls under way are not stopped. A waiting deploy may still be superseded by a newer one.
    """
    _act(config, name, pause_target, f"{name} is paused already")


@targets.command(name="resume")
@CONFIG
@click.argument("name")
@exits
def resume(config: Path | None, name: str) -> None:
    """Resume target NAME: its calls begin again, first those that waited for it."""
    _act(config, name, resume_target, f"{name} is not paused")


def _act(
    config: Path | None,
    name: str,
    act: Callable[[Transaction, str, Wish], Awaitable[Done]],
    otherwise: str,
) -> None:
    """Act on a target. Only a change is a line of the audit."""
    settings = _settings(config, name)

    async def work(tx: Transaction) -> Done:
        return await act(tx, name, Wish(by=user_name()))

    async def run() -> Done:
        async with open_ledger(settings) as ledger:
            return await ledger.commit(work)

    done = asyncio.run(run())
    for line in done.lines:
        audit.log.info(line.event, **action_fields(line))
    audit.flush()
    if done.refusal:
        click.echo(otherwise, err=True)


def _settings(config: Path | None, name: str) -> Settings:
    """Return the settings, once it is sure that the target exists; and set up the audit."""
    settings = load_settings(config=config)
    loaded = load(settings.config, secrets_of=())
    names = list(loaded.config.targets)
    if name not in names:
        raise click.UsageError(f"no target {name!r} in relay.yaml, which has {', '.join(names)}")
    configure_audit(settings, loaded.config)
    return settings
