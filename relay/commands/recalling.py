"""What the commands `show` print of a delivery or deploy that Redis does not have any more."""

from __future__ import annotations

import click
import orjson

from config.settings import load_settings
from relay.audit_history import tell
from relay.audit_query import as_text
from relay.commands.acting import why
from relay.errors import AuditUnreadable
from relay.replays import Done
from relay.statuses import Kind


def recall(kind: Kind, id_: str, *, as_json: bool) -> None:
    """Print what the audit file tells of it, the oldest first. Raises AuditUnreadable, and
    ClickException where that does not have it either."""
    path = load_settings().audit_file
    unknown = why(kind, Done(id_, refusal="unknown"))
    if path is None:
        raise click.ClickException(unknown)
    try:
        found = tell(path.absolute(), kind, id_)
    except OSError as error:
        where = error.filename or path
        raise AuditUnreadable(f"{where} cannot be read ({error.strerror})") from None
    if not found.entries:
        until = f", which goes back to {found.back_to}" if found.back_to else ""
        raise click.ClickException(f"{unknown}, nor in the audit file{until}")
    if as_json:
        told = {"id": id_, "history": found.entries, "complete": found.complete}
        click.echo(orjson.dumps(told))
        return
    click.echo(
        f"Redis does not have this {kind}, or not any more; the audit file tells of it:", err=True
    )
    for entry in found.entries:
        click.echo(as_text(entry))
    if not found.complete:
        click.echo("and more before, which `audit query` prints", err=True)
