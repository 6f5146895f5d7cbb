"""Approve a deploy that waits for it."""

from __future__ import annotations

from collections.abc import Mapping

from config.model import Target
from relay.events.ids import public_id
from relay.ledger.actions import (
    Consequence,
    Done,
    Wish,
    consequence_of,
    note_action,
    superseded_line,
)
from relay.ledger.endings import after_end, supersede
from relay.ledger.replay import FORCED, queue_again, refused_as_overtaken
from relay.ledger.transaction import Row, Transaction

APPROVED_LATE = "a person approved it after a newer one went out"


async def approve_deploy(
    tx: Transaction, number: int, wish: Wish, targets: Mapping[str, Target]
) -> Done:
    """Approve a deploy and make it due.

    Where a newer one of its target and ref has been called, it has to be forced. It then becomes a
    new deploy behind all others, as a replay does. ``targets`` are relay.yaml's.
    """
    name = public_id("deploy", number)
    row = await tx.row("deploy", {"deploy": number})
    if row is None:
        return Done(id=name, refusal="unknown")
    if row["approved_by"]:
        return Done(id=name, refusal="approved", other=row["approved_by"])
    was_asked = row["approval_until"] is not None
    if row["status"] == "waiting":
        if row["waits"] != "approval":
            return Done(id=name, refusal="unasked")
    elif row["status"] != "superseded" or not was_asked or row["replayed_by"] is not None:
        return Done(id=name, refusal="gone", other=row["status"])
    consequence = await consequence_of(tx, number)
    is_late = row["status"] == "superseded" or bool(consequence.called)
    if is_late and not wish.forced:
        return refused_as_overtaken(name, consequence)
    if is_late:
        return await _approve_late(tx, row, wish, targets, consequence)
    if wish.dry:
        return Done(id=name, consequence=consequence)
    await tx.run("approve_deploy", {"deploy": number, "by": wish.by, "now": tx.now})
    await note_action(tx, "approve", name, wish.by, FORCED if wish.forced else "")
    return Done(id=name, consequence=consequence, woken=[number])


async def _approve_late(
    tx: Transaction,
    row: Row,
    wish: Wish,
    targets: Mapping[str, Target],
    consequence: Consequence,
) -> Done:
    name = public_id("deploy", row["id"])
    target = targets.get(row["target_name"])
    if target is None:
        return Done(id=name, refusal="target", other=row["target_name"])
    if wish.dry:
        return Done(id=name, consequence=consequence)
    made = await queue_again(tx, row, wish, newest_only=target.newest_only, is_approved=True)
    ended = await supersede(tx, [row["id"]], by=made.id, reason=APPROVED_LATE)
    lines = [*made.lines, *(superseded_line(line, made.id) for line in ended)]
    await note_action(tx, "approve", name, wish.by, FORCED)
    return Done(
        id=name,
        new=public_id("deploy", made.id),
        consequence=consequence,
        lines=lines,
        woken=[made.id, *await after_end(tx, row["target"], row["ref"])],
    )
