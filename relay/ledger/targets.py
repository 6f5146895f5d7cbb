"""Targets in the ledger: their rows are made when a deploy or a person first needs them."""

from __future__ import annotations

from relay.ledger.transaction import Transaction


async def target_number(tx: Transaction, name: str) -> int:
    """Return the number of a target's row, which is made where there is none."""
    row = await tx.row("target_by_name", {"name": name})
    if row is None:
        await tx.run("insert_target", {"name": name})
        row = await tx.row("target_by_name", {"name": name})
    if row is None:
        raise RuntimeError("an insert left no row")
    return int(row["id"])
