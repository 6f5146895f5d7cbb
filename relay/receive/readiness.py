"""What /readyz answers: whether webhooks are accepted now, and what is in the way of the rest."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from relay import audit
from relay.errors import AuditUnavailable, LedgerUnavailable
from relay.ledger.ledger import Ledger
from relay.ledger.transaction import Transaction
from relay.receive.intake import DeliveryWaker

PAUSE = 1.0
"""Seconds between two looks at the ledger: anybody may ask, and a look costs a commit."""


class Report(NamedTuple):
    """One answer."""

    code: int
    fields: dict[str, str]


class Readiness:
    """Whether this process could store a delivery now."""

    def __init__(self, ledger: Ledger, waker: DeliveryWaker) -> None:
        self._ledger = ledger
        self._waker = waker
        self._ledger_said = ""
        self._looked_at = -PAUSE
        self._looking: asyncio.Task[None] | None = None

    async def report(self, *, has_routes: bool) -> Report:
        """Return the answer: 503 only where webhooks would be refused."""
        ledger = await self._ask_ledger()
        fields = {
            "ledger": ledger,
            "queue": self._waker.away or "ok",
            "routes": "ok" if has_routes else "relay.yaml has no routes",
            "audit": _ask_audit(),
        }
        if ledger != "ok" or fields["audit"] != "ok":
            status = "not ready"
        else:
            is_all_well = all(text == "ok" for text in fields.values())
            status = "ready" if is_all_well else "degraded"
        return Report(503 if status == "not ready" else 200, {"status": status, **fields})

    async def _ask_ledger(self) -> str:
        if self._looking is None and time.monotonic() - self._looked_at >= PAUSE:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        if self._looking is not None:
            await asyncio.shield(self._looking)
        return self._ledger_said

    async def _look(self) -> None:
        try:
            await self._ledger.commit(_write_probe)
        except LedgerUnavailable as error:
            self._ledger_said = str(error)
        else:
            self._ledger_said = "ok"
        finally:
            self._looked_at, self._looking = time.monotonic(), None


async def _write_probe(tx: Transaction) -> None:
    await tx.run("write_probe", {"now": str(tx.now)})


def _ask_audit() -> str:
    try:
        audit.flush()
    except AuditUnavailable:
        # Where the file is, is nobody's business who may ask here.
        return "it takes no lines"
    return "ok"
