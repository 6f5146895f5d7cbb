"""Targets in the ledger: their rows are made when a deploy or a person first needs them."""

from __future__ import annotations

from typing import NamedTuple

from relay.ledger.rows import microseconds, seconds
from relay.ledger.transaction import Reader, Transaction


async def target_number(tx: Transaction, name: str) -> int:
    """Return the number of a target's row, which is made where there is none."""
    row = await tx.row("target_by_name", {"name": name})
    if row is None:
        await tx.run("insert_target", {"name": name})
        row = await tx.row("target_by_name", {"name": name})
    if row is None:
        raise RuntimeError("an insert left no row")
    return int(row["id"])


class TargetOfDeploy(NamedTuple):
    """What a process needs to know before it judges a deploy by its relay.yaml."""

    name: str
    config: str
    """Version of the relay.yaml that was in force when its delivery came."""
    received_at: float
    """When that was, in seconds since the Unix epoch."""


async def target_of_deploy(reader: Reader, deploy: int) -> TargetOfDeploy | None:
    """Return the target of a deploy; None where there is no such deploy."""
    row = await reader.row("target_of_deploy", {"deploy": deploy})
    if row is None:
        return None
    return TargetOfDeploy(row["name"], row["config"], seconds(row["received_at"]))


async def look_again_at_deploy(tx: Transaction, deploy: int, pause: float) -> None:
    """Have a deploy that is due judged in so many seconds."""
    again_at = tx.now + microseconds(pause)
    await tx.run("look_again_at_deploy", {"deploy": deploy, "look": again_at, "now": tx.now})
