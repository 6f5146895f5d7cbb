"""The answer of /readyz: whether webhooks are accepted now, and what else does not work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from relay import audit
from relay.audit_fields import holder_in_words
from relay.errors import AuditUnavailable, LedgerUnavailable
from relay.ledger.acceptance import in_words
from relay.ledger.due import read_rebuilt
from relay.ledger.ledger import Ledger
from relay.ledger.records import iso
from relay.ledger.transaction import Reader, Transaction
from relay.receive.intake import Intake

PAUSE = 1.0
"""Seconds between two checks: anybody may ask, and a check costs a commit."""

LARGE_PROBE = 262_144
"""Bytes that a check writes after a failed commit, about as many as a delivery needs."""


class ReadinessReport(NamedTuple):
    """One answer."""

    code: int
    fields: dict[str, str]


class Readiness:
    """Whether this process could store a delivery now."""

    def __init__(
        self, ledger: Ledger, intake: Intake, ask_queue: Callable[[], Awaitable[str]]
    ) -> None:
        """``ask_queue`` returns ``ok``, or why jobs cannot be queued."""
        self._ledger = ledger
        self._intake = intake
        self._ask_queue = ask_queue
        self._refusal = ""
        self._queue = ""
        self._rebuilt = ""
        self._looked_at = -PAUSE
        self._looking: asyncio.Task[None] | None = None

    async def report(self, *, has_routes: bool) -> ReadinessReport:
        """Return the answer: 503 only where webhooks would be refused."""
        if self._looking is None and time.monotonic() - self._looked_at >= PAUSE:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        if self._looking is not None:
            await asyncio.shield(self._looking)
        behind = self._ledger.behind
        fields = {
            "ledger": self._refusal or (in_words(behind) if behind is not None else "ok"),
            "queue": self._queue,
            "routes": "ok" if has_routes else "relay.yaml has no routes",
            "audit": _ask_audit(),
        }
        is_ready = all(text == "ok" for text in fields.values())
        if self._ledger.stuck is not None:
            fields["holder"] = holder_in_words(self._ledger.stuck)
        if self._rebuilt:
            fields["rebuilt"] = self._rebuilt
        if self._refusal or fields["audit"] != "ok":
            return ReadinessReport(503, {"status": "not ready", **fields})
        return ReadinessReport(200, {"status": "ready" if is_ready else "degraded", **fields})

    async def _look(self) -> None:
        try:
            self._refusal, self._queue = await asyncio.gather(self._ask_ledger(), self._ask_queue())
        finally:
            self._looked_at, self._looking = time.monotonic(), None

    async def _ask_ledger(self) -> str:
        try:
            await self._ledger.commit(self._write_probe)
            self._rebuilt = await self._ledger.glance(_rebuilt)
        except LedgerUnavailable as error:
            return str(error)
        return ""

    async def _write_probe(self, tx: Transaction) -> None:
        # A nearly full disk may take a few bytes where it does not take a delivery.
        padding = "." * (LARGE_PROBE if self._intake.failure else 0)
        await tx.run("write_ledger_fact", {"name": "probe", "value": f"{tx.now}{padding}"})


async def _rebuilt(reader: Reader) -> str:
    """Return in words when Redis was last found emptied or put back; empty if never."""
    rebuilt = await read_rebuilt(reader)
    if rebuilt is None:
        return ""
    return f"{iso(rebuilt.at)}: Redis was emptied or put back; {rebuilt.jobs} jobs were made again"


def _ask_audit() -> str:
    try:
        audit.flush()
    except AuditUnavailable:
        # Anybody may ask here, so the path of the file is not told.
        return "it takes no lines"
    return "ok"
