"""The commands `ledger`: check it, back it up, restore it, accept one that was restored."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import orjson

from config.settings import Settings, load_settings
from relay import audit
from relay.audit_facts import read_facts
from relay.audit_fields import deploy_fields
from relay.commands.exits import exits
from relay.commands.options import JSON
from relay.commands.setup import audit_to_stderr
from relay.commands.user import user_name
from relay.errors import AuditUnreadable, LedgerNotBehind
from relay.events.ids import public_id
from relay.ledger import sqlite_file
from relay.ledger.acceptance import Accepted, AuditFacts, accept_ledger, lacking, read_kept
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE
from relay.ledger_marks import check_marks

MOST_LINES = 100
"""Rows of each kind that are printed; --json has all."""


@click.group()
def ledger() -> None:
    """Check the ledger, back it up, restore it."""


@ledger.command()
@click.option("--quick", is_flag=True, help="Do not compare indexes with their tables.")
@JSON
@exits
def check(quick: bool, as_json: bool) -> None:
    """Check the ledger's file for damage; exit 1 if there is some.

    Processes may run meanwhile.
    """
    report = sqlite_file.check_file(load_settings().data_dir / FILE, is_quick=quick)
    if as_json:
        fields = {**msgspec.structs.asdict(report), "sound": report.is_sound}
        click.echo(orjson.dumps(fields).decode())
    else:
        counts = ", ".join(f"{number} {name}" for name, number in report.counts.items())
        click.echo(f"{report.file}: {report.bytes} bytes, schema {report.schema}, {counts}")
        for fault in report.faults:
            click.echo(fault, err=True)
        if report.is_sound:
            click.echo("the ledger is whole")
        else:
            click.echo("the ledger is damaged: deploy-relay ledger restore FILE", err=True)
    if not report.is_sound:
        sys.exit(1)


@ledger.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@exits
def backup(file: Path) -> None:
    """Copy a snapshot of the ledger to FILE. Processes may run meanwhile.

    FILE must not exist. Only this user may read it: it has payloads and the hashes of tokens.
    """
    size = sqlite_file.back_up(load_settings().data_dir, file)
    click.echo(f"{file}: {size} bytes, checked")


@ledger.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@exits
def restore(file: Path) -> None:
    """Replace the ledger by the backup FILE. No process of deploy-relay may run.

    FILE is checked first, and the old ledger is renamed. The restored ledger is older: webhooks are
    accepted, but no call is made until you run deploy-relay ledger accept.
    """
    settings = audit_to_stderr()
    aside = sqlite_file.restore(settings.data_dir, file)
    kept = aside.name if aside is not None else ""
    audit.log.warning("ledger.restored", by=user_name(), file=str(file), kept=kept)
    audit.flush()
    click.echo(f"{file} is the ledger now" + f"; the one before is {aside}" * bool(aside))


@ledger.command()
@click.option("--dry-run", is_flag=True, help="List only; accept nothing.")
@JSON
@exits
def accept(dry_run: bool, as_json: bool) -> None:
    """List what the audit file has and a restored ledger lacks, and let calls begin again.

    What is listed is not run. A deploy that waits in the ledger goes on only if the audit file
    shows that nothing happened to it since. Other deploys become uncertain and wait for a person.
    """
    settings = audit_to_stderr()
    facts, accepted = asyncio.run(_accept(settings, dry_run=dry_run))
    if as_json:
        click.echo(orjson.dumps(_as_json(facts, accepted, dry_run=dry_run)).decode())
    else:
        _print(facts, accepted, dry_run=dry_run)


async def _accept(settings: Settings, *, dry_run: bool) -> tuple[AuditFacts | None, Accepted]:
    prepare(settings.data_dir)
    opened = Ledger(settings.data_dir)
    try:
        await check_marks(opened, settings)
        behind = opened.behind
        if behind is None:
            raise LedgerNotBehind("the ledger is not behind: there is nothing to accept")
        facts = None
        if settings.audit_file is not None:
            kept = await opened.read(lambda reader: read_kept(reader, behind))
            try:
                facts = read_facts(settings.audit_file, behind, kept)
            except OSError as error:
                reason = f"{settings.audit_file} cannot be read ({error.strerror})"
                raise AuditUnreadable(reason) from None
        if dry_run:
            return facts, Accepted(behind, (), ())
        by = user_name()
        accepted = await opened.commit(lambda tx: accept_ledger(tx, by, facts))
        await opened.refresh()
        _say(by, facts, accepted)
        return facts, accepted
    finally:
        await opened.close()


def _say(by: str, facts: AuditFacts | None, accepted: Accepted) -> None:
    for doubted in accepted.doubted:
        audit.log.warning("deploy.uncertain", **deploy_fields(doubted.line), reason=doubted.reason)
    deliveries, deploys = lacking(accepted.behind, facts) if facts else ([], [])
    audit.log.warning(
        "ledger.accepted",
        by=by,
        deliveries=len(deliveries),
        deploys=len(deploys),
        actions=len(facts.actions) if facts else 0,
        uncertain=len(accepted.doubted),
    )
    audit.flush()


def _as_json(facts: AuditFacts | None, accepted: Accepted, *, dry_run: bool) -> dict[str, Any]:
    deliveries, deploys = lacking(accepted.behind, facts) if facts else ([], [])
    return {
        "accepted": not dry_run,
        "ahead": list(accepted.behind.ahead),
        "deliveries": [
            {**msgspec.structs.asdict(said), "id": public_id("delivery", said.id)}
            for said in deliveries
        ],
        "deploys": [
            {
                **msgspec.structs.asdict(said),
                "id": public_id("deploy", said.id),
                "delivery": public_id("delivery", said.delivery),
            }
            for said in deploys
        ],
        "actions": [msgspec.structs.asdict(said) for said in facts.actions] if facts else [],
        "uncertain": [public_id("deploy", doubted.line.id) for doubted in accepted.doubted],
        "ignored": [public_id("delivery", number) for number in accepted.dropped],
    }


def _print(facts: AuditFacts | None, accepted: Accepted, *, dry_run: bool) -> None:
    if facts is None:
        click.echo("no audit file is kept (RELAY_AUDIT_FILE), so what is missing cannot be listed")
    else:
        deliveries, deploys = lacking(accepted.behind, facts)
        _print_some(
            "deliveries that the ledger lacks",
            [
                f"{public_id('delivery', said.id)}  {said.repo}  {said.ref}  {said.sha[:12]}  "
                f"{said.event}"
                for said in deliveries
            ],
        )
        _print_some(
            "deploys that the ledger lacks",
            [
                f"{public_id('deploy', said.id)}  {said.target}  attempt {said.attempt}  "
                f"{said.event}"
                for said in deploys
            ],
        )
        _print_some(
            "actions that the ledger lacks",
            [f"{said.at}  {said.event}  {said.subject}  {said.by}" for said in facts.actions],
        )
    if dry_run:
        click.echo("nothing is accepted yet: leave out --dry-run")
        return
    _print_some(
        "deploys that are uncertain now",
        [
            f"{public_id('deploy', doubted.line.id)}  {doubted.line.target}  {doubted.reason}"
            for doubted in accepted.doubted
        ],
    )
    _print_some(
        "deliveries that are ignored now",
        [public_id("delivery", number) for number in accepted.dropped],
    )
    click.echo("the ledger is accepted: calls are made again")


def _print_some(title: str, lines: Sequence[str]) -> None:
    click.echo(f"{title}: {len(lines)}")
    for line in lines[:MOST_LINES]:
        click.echo(f"  {line}")
    if len(lines) > MOST_LINES:
        click.echo(f"  and {len(lines) - MOST_LINES} more; --json has all")
