"""Dismiss a deploy that needs attention: a person has looked at the platform and decided."""

from __future__ import annotations

from relay.events.deploy_life import LIFE
from relay.events.ids import public_id
from relay.ledger.actions import MOST_NOTE, ActionLine, Done, Wish, note_action
from relay.ledger.rows import deploy_line
from relay.ledger.transaction import Transaction


async def dismiss_deploy(tx: Transaction, number: int, wish: Wish, reason: str) -> Done:
    """Dismiss a failed, uncertain or unknown deploy. ``reason`` is kept with the action."""
    name = public_id("deploy", number)
    reason = reason.strip()[:MOST_NOTE]
    row = await tx.row("deploy", {"deploy": number})
    if row is None:
        return Done(id=name, refusal="unknown")
    if not LIFE[row["status"]].is_dismissable:
        return Done(id=name, refusal="undecided", other=row["status"])
    if not reason:
        return Done(id=name, refusal="untold")
    if wish.dry:
        return Done(id=name)
    await tx.run("dismiss_deploy", {"deploy": number, "by": wish.by})
    await note_action(tx, "dismiss", name, wish.by, reason)
    fields = {"by": wish.by, "reason": reason}
    line = ActionLine(event="deploy.dismissed", subject=deploy_line(row), fields=fields)
    return Done(id=name, lines=[line])
