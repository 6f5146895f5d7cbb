"""Accepting a ledger that went back in time: what it cannot know ends, and nothing is run.

A deploy that waits in a restored ledger may have been called, cancelled or superseded since the
backup was made. It goes on only if the audit file shows that nothing happened to it since.
Otherwise it is uncertain, so that a person looks at the platform first.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from relay.errors import LedgerNotBehind
from relay.events.ids import public_id
from relay.ledger.endings import after_end
from relay.ledger.generation import Behind, LastIds, read_behind, read_mark
from relay.ledger.rows import DeployLine, deploy_line
from relay.ledger.transaction import Reader, Row, Transaction

_ROUTED = "the ledger was restored, and it may have been routed since: replay it if that is wanted"


class DeployInAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit file says last of a deploy."""

    id: int
    delivery: int
    target: str
    event: str
    attempt: int
    has_ended: bool


class DeliveryInAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit file says last of a delivery."""

    id: int
    source: str
    repo: str
    ref: str
    sha: str
    event: str
    is_routed: bool


class ActionInAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What a person did, as the audit file says it."""

    at: str
    """ISO 8601, UTC."""
    by: str
    event: str
    subject: str


class AuditFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit file says of deliveries, deploys and people."""

    deliveries: Mapping[int, DeliveryInAudit]
    deploys: Mapping[int, DeployInAudit]
    actions: tuple[ActionInAudit, ...]
    """Those after the newest action in the ledger."""
    ids: LastIds


class Doubted(msgspec.Struct, frozen=True):
    """A deploy that waited in the restored ledger, and is uncertain now."""

    line: DeployLine
    reason: str


class Accepted(msgspec.Struct, frozen=True):
    """What accepting the ledger has changed."""

    behind: Behind
    doubted: tuple[Doubted, ...]
    dropped: tuple[int, ...]
    """Deliveries that were to be routed, and are ignored now."""


async def accept_ledger(tx: Transaction, by: str, facts: AuditFacts | None) -> Accepted:
    """Take the ledger as it is from now on. ``facts`` is None where no audit file is kept. Raises
    LedgerNotBehind."""
    behind = await read_behind(tx)
    if behind is None:
        raise LedgerNotBehind("the ledger is not behind: there is nothing to accept")
    if facts is not None:
        for kind, number in msgspec.structs.asdict(facts.ids).items():
            await tx.run("raise_last_id", {"kind": kind, "number": number})
    doubted = await _doubt_deploys(tx, behind, facts)
    dropped = await _drop_deliveries(tx, behind, facts)
    await _take_new_name(tx, behind)
    await tx.run("delete_ledger_fact", {"name": "behind"})
    note = f"ahead of it: {', '.join(behind.ahead)}; uncertain now: {len(doubted)}"
    action = {"now": tx.now, "by": by, "what": "accept", "subject": "ledger", "note": note}
    await tx.run("insert_action", action)
    return Accepted(behind, tuple(doubted), tuple(dropped))


class Kept(NamedTuple):
    """Numbers of what the ledger has."""

    queued_deliveries: frozenset[int]
    """Those that would go on when the ledger is accepted."""
    open_deploys: frozenset[int]
    new_deliveries: frozenset[int]
    """Those that were added since the ledger was found to be behind."""
    new_deploys: frozenset[int]
    newest_actions: frozenset[str]
    """Subjects of the newest actions that the ledger had when it was found behind."""


async def read_kept(reader: Reader, behind: Behind) -> Kept:
    """Return what the ledger has of what the audit file may tell more of."""
    before = {"delivery": behind.before.delivery, "deploy": behind.before.deploy, "now": reader.now}

    async def numbers(query: str) -> frozenset[int]:
        return frozenset(row["id"] for row in await reader.rows(query, before))

    acted = await reader.rows(
        "subjects_of_actions_at", {"acted_at": round(behind.acted_at * 1_000_000)}
    )
    return Kept(
        await numbers("queued_deliveries_until"),
        await numbers("open_deploys_until"),
        await numbers("deliveries_after"),
        await numbers("deploys_after"),
        frozenset(row["subject"] for row in acted),
    )


def _until(reader: Reader, behind: Behind) -> dict[str, int]:
    return {"deploy": behind.before.deploy, "now": reader.now}


async def _doubt_deploys(
    tx: Transaction, behind: Behind, facts: AuditFacts | None
) -> list[Doubted]:
    doubted = []
    for row in await tx.rows("open_deploys_until", _until(tx, behind)):
        reason = _doubt(row, facts)
        if not reason:
            continue
        ended = {
            "deploy": row["id"],
            "status": "uncertain",
            "reason": reason,
            "by": None,
            "now": tx.now,
        }
        line = await tx.row("deploy", ended)
        if row["status"] == "calling":
            await tx.run("mark_attempt_cut_off", {**ended, "number": row["attempt"]})
        await tx.run("end_deploy", ended)
        await after_end(tx, row["target"], row["ref"])
        if line is not None:
            doubted.append(Doubted(deploy_line(line), reason))
    return doubted


def _doubt(row: Row, facts: AuditFacts | None) -> str:
    """Return why a deploy of the restored ledger must not be called; empty if it may be."""
    said = facts.deploys.get(row["id"]) if facts is not None else None
    if said is None:
        return "the ledger was restored, and the deploy may have been called since"
    if said.has_ended or said.attempt > row["attempt"]:
        return f"the ledger was restored, and the audit says {said.event} since"
    return ""


async def _drop_deliveries(tx: Transaction, behind: Behind, facts: AuditFacts | None) -> list[int]:
    dropped = []
    for row in await tx.rows("queued_deliveries_until", {"delivery": behind.before.delivery}):
        said = facts.deliveries.get(row["id"]) if facts is not None else None
        if said is not None and not said.is_routed:
            continue
        params = {"delivery": row["id"], "status": "ignored", "reason": _ROUTED}
        await tx.run("finish_routing", params)
        dropped.append(int(row["id"]))
    return dropped


async def _take_new_name(tx: Transaction, behind: Behind) -> None:
    """Call the ledger by a new name, so that marks of the old ones do not count any more."""
    own = await read_mark(tx)
    for instance in {own.instance, *behind.instances}:
        name = f"ancestor {instance}"
        await tx.run("write_ledger_fact", {"name": name, "value": str(tx.now)})
    await tx.run("write_ledger_fact", {"name": "instance", "value": secrets.token_hex(8)})


def lacking(behind: Behind, facts: AuditFacts) -> tuple[list[DeliveryInAudit], list[DeployInAudit]]:
    """Return the deliveries and deploys that the audit file has and the ledger lacks."""
    before = behind.before
    deliveries = [
        said for number, said in sorted(facts.deliveries.items()) if number > before.delivery
    ]
    deploys = [said for number, said in sorted(facts.deploys.items()) if number > before.deploy]
    return deliveries, deploys


def in_words(behind: Behind) -> str:
    """Return what an operator is told of a ledger that is behind."""
    names = {
        "file": "the mark beside it",
        "redis": "the mark in Redis",
        "audit": f"the audit file ({public_id('delivery', behind.skipped.delivery)})",
    }
    ahead = " and ".join(names[name] for name in behind.ahead)
    return (
        f"the ledger is older than {ahead}: no call is made until you run "
        "deploy-relay ledger accept"
    )
