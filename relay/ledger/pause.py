"""Pause a target and let it go on. The caller checks that relay.yaml has the target."""

from __future__ import annotations

from relay.ledger.actions import ActionLine, Done, Wish, note_action
from relay.ledger.targets import target_number
from relay.ledger.transaction import Transaction


async def pause_target(tx: Transaction, name: str, wish: Wish) -> Done:
    """Have no call to a target begin from the commit on."""
    row = await tx.row("target_by_name", {"name": name})
    if row is not None and row["paused_at"] is not None:
        return Done(id=name, refusal="paused")
    if wish.dry:
        return Done(id=name)
    target = await target_number(tx, name)
    await tx.run("pause_target", {"target": target, "now": tx.now})
    await note_action(tx, "pause", name, wish.by, "")
    fields = {"target": name, "by": wish.by}
    return Done(id=name, lines=[ActionLine(event="target.paused", subject=None, fields=fields)])


async def resume_target(tx: Transaction, name: str, wish: Wish) -> Done:
    """Let calls to a target begin again, and make due all that waited for this."""
    row = await tx.row("target_by_name", {"name": name})
    if row is None or row["paused_at"] is None:
        return Done(id=name, refusal="unpaused")
    if wish.dry:
        return Done(id=name)
    await tx.run("resume_target", {"target": row["id"]})
    woken = await tx.rows(
        "wake_all_that_wait_for", {"target": row["id"], "waits": "paused", "now": tx.now}
    )
    await note_action(tx, "resume", name, wish.by, "")
    fields = {"target": name, "by": wish.by}
    return Done(
        id=name,
        lines=[ActionLine(event="target.resumed", subject=None, fields=fields)],
        woken=[int(one["id"]) for one in woken],
    )
