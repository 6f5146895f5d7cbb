"""How much is still to be done, and what waits for a time or a person instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from relay.ledger.rows import seconds
from relay.ledger.transaction import Reader


class Remaining(NamedTuple):
    """What is left at one moment."""

    queued: int
    """Deliveries, deploys and notices for a worker, those that are due included."""
    limited: int
    """Deploys that wait for a slot at their target."""
    running: int
    """Deploys and notices that are being called."""
    later: Mapping[str, int]
    """How many deploys wait for what else; WaitReason of relay/events/deploy_life.py."""
    next_at: float
    """When the first of ``later`` is looked at again, in seconds since the Unix epoch; 0 without
    any."""
    waits: Mapping[str, int]
    """How many deploys wait for what, due or not; empty: a worker."""

    @property
    def active(self) -> int:
        """How many go on by themselves, at once."""
        return self.queued + self.limited + self.running


async def read_remaining(reader: Reader) -> Remaining:
    """Return what is left now."""
    now = {"now": reader.now}
    counts = await reader.row("count_remaining", now)
    queued, running = (counts["queued"], counts["running"]) if counts is not None else (0, 0)
    waits = {row["waits"]: int(row["number"]) for row in await reader.rows("waits")}
    rest = dict(waits)
    queued += rest.pop("", 0)
    # What is due keeps what it waited for.
    for row in await reader.rows("count_due", now):
        queued += row["number"]
        rest[row["waits"]] -= row["number"]
    limited = rest.pop("slot", 0)
    later = {reason: number for reason, number in rest.items() if number}
    first = await reader.row("next_later", now)
    next_at = seconds(first["next_at"]) if first else 0
    return Remaining(queued, limited, running, later, next_at, waits)
