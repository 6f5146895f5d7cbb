"""What follows when a deploy ends or gives way: who is due next, and who is superseded."""

from __future__ import annotations

from collections.abc import Sequence

from relay.ledger.rows import DeployLine, deploy_line
from relay.ledger.transaction import Transaction


async def after_end(tx: Transaction, target: int, ref: int) -> list[int]:
    """Make due what waited for a deploy of this target and ref: the next one in their order, the
    next one for a slot, the next one for the probe. Return the ids."""
    woken = []
    for query, waits in (
        ("wake_next_in_order", "order"),
        ("wake_next_for_slot", "slot"),
        ("wake_next_for_slot", "probe"),
    ):
        row = await tx.row(query, {"target": target, "ref": ref, "now": tx.now, "waits": waits})
        if row is not None:
            woken.append(int(row["id"]))
    return woken


async def supersede(
    tx: Transaction, deploys: Sequence[int], *, by: int, reason: str
) -> list[DeployLine]:
    """End deploys that wait because something newer took their place. ``by`` is a deploy, or 0.
    Return what the audit says of those that it ended."""
    lines = []
    for number in deploys:
        row = await tx.row("deploy", {"deploy": number})
        changed = await tx.run(
            "supersede_deploy",
            {"deploy": number, "by": by or None, "reason": reason, "now": tx.now},
        )
        if changed and row is not None:
            lines.append(deploy_line(row))
    return lines


async def supersede_older(tx: Transaction, deploy: int, reason: str) -> list[DeployLine]:
    """End each deploy of the same target and ref that waits and is older than this one. It inherits
    the place in the line of those that were never called: else a busy branch would wait for ever.
    """
    rows = await tx.rows("older_waiting", {"deploy": deploy})
    uncalled = [row["line_at"] for row in rows if not row["attempt"]]
    if uncalled:
        await tx.run("inherit_place", {"deploy": deploy, "line_at": min(uncalled)})
    return await supersede(tx, [int(row["id"]) for row in rows], by=deploy, reason=reason)


async def end_ref(tx: Transaction, ref: int, pos: int, reason: str) -> list[DeployLine]:
    """End what waits for an older state of a ref that was deleted or closed, at every target."""
    rows = await tx.rows("waiting_of_ended_ref", {"ref": ref, "pos": pos})
    return await supersede(tx, [int(row["id"]) for row in rows], by=0, reason=reason)
