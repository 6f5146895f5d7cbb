"""Refused requests in the ledger: sums by hour, source and status, because they are nobody's
deliveries."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relay.ledger.rows import microseconds
from relay.ledger.transaction import Transaction


class RefusalSum(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that were refused alike within one hour."""

    hour: int
    """Hours since the Unix epoch."""
    source: str
    """Name of the source; empty where relay.yaml has none of this name."""
    status: int
    """HTTP status of the answer."""
    count: int
    last_at: float
    """Seconds since the Unix epoch."""
    last_reason: str
    last_remote: str


async def add_refusals(tx: Transaction, sums: Sequence[RefusalSum]) -> None:
    """Add sums to those that the ledger has."""
    await tx.run_many(
        "add_refusals",
        [{**msgspec.structs.asdict(one), "last_at": microseconds(one.last_at)} for one in sums],
    )
