"""The commands `token`: create, list and revoke the tokens of the console."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import click

from config.settings import Settings, load_settings
from relay import audit
from relay.commands.exits import exits
from relay.commands.ledger_access import open_ledger
from relay.commands.setup import audit_to_stderr
from relay.commands.user import user_name
from relay.ledger.ledger import Work
from relay.tokens import Role, Token, create, revoke, tokens

T = TypeVar("T")


@click.group()
def token() -> None:
    """Create, list and revoke the tokens of the console."""


@token.command(name="create")
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator"]), required=True)
@exits
def create_token(name: str, role: Role) -> None:
    """Create a token for NAME and print it. It is shown only once.

    A viewer reads. An operator also replays, cancels, approves and pauses. The audit names actions
    by NAME. The audit line is written to standard error.
    """
    made = asyncio.run(_commit(audit_to_stderr(), lambda tx: create(tx, name, role)))
    audit.log.info("token.created", token=made.token.id, name=name, role=role)
    audit.flush()
    click.echo(made.text)


@token.command(name="list")
@exits
def list_tokens() -> None:
    """Print id, role, time of creation and name of each token."""

    async def read() -> Sequence[Token]:
        async with open_ledger(load_settings()) as ledger:
            return await ledger.read(tokens)

    for one in asyncio.run(read()):
        click.echo(f"{one.id}  {one.role:8}  {one.created_at}  {one.name}")


@token.command(name="revoke")
@click.argument("id_", metavar="ID")
@exits
def revoke_token(id_: str) -> None:
    """Revoke the token with this ID. Its sessions end."""
    gone = asyncio.run(_commit(audit_to_stderr(), lambda tx: revoke(tx, id_, user_name())))
    audit.log.info("token.revoked", token=gone.id, name=gone.name, role=gone.role)
    audit.flush()
    click.echo(f"{gone.id} ({gone.name}) is revoked")


async def _commit(settings: Settings, work: Work[T]) -> T:
    async with open_ledger(settings) as ledger:
        return await ledger.commit(work)
