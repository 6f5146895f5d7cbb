"""Cancel what waits. A worker that claims it at the same moment wins or loses, never both."""

from __future__ import annotations

from relay.events.deploy_life import LIFE
from relay.events.ids import public_id
from relay.ledger.actions import ActionLine, Done, Wish, delivery_line, note_action
from relay.ledger.endings import after_end
from relay.ledger.rows import deploy_line
from relay.ledger.transaction import Transaction

CANCELLED = "{} cancelled it"


async def cancel_deploy(tx: Transaction, number: int, wish: Wish) -> Done:
    """Cancel a deploy that waits, and make due what stood behind it. No webhook undoes this: its
    row stays, so the same event is a duplicate."""
    name = public_id("deploy", number)
    row = await tx.row("deploy", {"deploy": number})
    if row is None:
        return Done(id=name, refusal="unknown")
    if row["status"] == "calling":
        return Done(id=name, refusal="started")
    if not LIFE[row["status"]].is_cancellable:
        return Done(id=name, refusal="gone", other=row["status"])
    if wish.dry:
        return Done(id=name)
    await tx.run("cancel_deploy", {"deploy": number, "by": wish.by, "now": tx.now})
    await note_action(tx, "cancel", name, wish.by, "")
    line = ActionLine(event="deploy.cancelled", subject=deploy_line(row), fields={"by": wish.by})
    woken = await after_end(tx, row["target"], row["ref"])
    return Done(id=name, lines=[line], woken=woken)


async def cancel_delivery(tx: Transaction, number: int, wish: Wish) -> Done:
    """Cancel a delivery that has not been routed. Another webhook about the same state of its ref
    is a duplicate then; see relay/ledger/intake.py."""
    name = public_id("delivery", number)
    row = await tx.row("delivery", {"delivery": number})
    if row is None:
        return Done(id=name, refusal="unknown")
    if row["status"] != "queued":
        return Done(id=name, refusal="gone", other=row["status"])
    if wish.dry:
        return Done(id=name)
    cancelled = {"delivery": number, "by": wish.by, "reason": CANCELLED.format(wish.by)}
    await tx.run("cancel_delivery", cancelled)
    await note_action(tx, "cancel", name, wish.by, "")
    line = ActionLine(
        event="delivery.cancelled", subject=delivery_line(row), fields={"by": wish.by}
    )
    return Done(id=name, lines=[line])
