"""The commands `token`: who may use the console."""

from __future__ import annotations

import sys

import click

from config.settings import load_settings
from relay import audit
from relay.audit_file import audit_file
from relay.commands.exits import exits
from relay.store import asked
from relay.tokens import Role, create, revoke, tokens


@click.group()
def token() -> None:
    """Make, list and revoke the tokens with which people and programs use the console."""


@token.command(name="create")
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator"]), required=True)
@exits
def create_token(name: str, role: Role) -> None:
    """Make a token for NAME and print it. It is shown this once.

    A viewer looks, an operator also replays, cancels, approves and pauses. NAME is what the audit
    says of who did it. The audit's line is written to standard error.
    """
    with asked(_prepared()) as redis:
        made = create(redis, name, role)
    audit.log.info("token.created", token=made.token.id, name=name, role=role)
    audit.flush()
    click.echo(made.text)


@token.command(name="list")
@exits
def list_tokens() -> None:
    """Print id, role, day of making and name of each token."""
    with asked(load_settings().redis_address()) as redis:
        for one in tokens(redis):
            click.echo(f"{one.id}  {one.role:8}  {one.created_at}  {one.name}")


@token.command(name="revoke")
@click.argument("id_", metavar="ID")
@exits
def revoke_token(id_: str) -> None:
    """Take the token with this ID away. Its sessions end with it."""
    with asked(_prepared()) as redis:
        gone = revoke(redis, id_)
    audit.log.info("token.revoked", token=gone.id, name=gone.name, role=gone.role)
    audit.flush()
    click.echo(f"{gone.id} ({gone.name}) is revoked")


def _prepared() -> str:
    """The address of Redis, once the audit is set up so that standard output is the token's."""
    settings = load_settings()
    stderr = sys.stderr.buffer
    audit.configure(
        stream=getattr(stderr, "raw", stderr),
        style=settings.log_format,
        secrets=settings.secret_values(),
        file=audit_file(settings),
    )
    return settings.redis_address()
