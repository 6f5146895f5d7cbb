"""Has the ledger cleaned: rounds of retention, run by one process at a time, and their lines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from uuid import uuid4

import msgspec

from config.settings import Settings
from relay.audit import log
from relay.errors import LedgerUnavailable
from relay.ledger.due import give_up_duty, take_duty
from relay.ledger.ledger import Ledger
from relay.ledger.retention import DUTY, Cleaned, clean, keep_of
from relay.tasks import end_tasks

PERIOD = 60.0
"""Seconds between two rounds; between two that have more to delete, PAUSE."""

PAUSE = 1.0

LEASE = 600.0
"""Seconds after which another process cleans, if the one that did is not heard of."""

TOLD_EVERY = 3_600.0
"""Seconds between two lines about what went because of its age."""

_COUNTS = (
    *("deliveries", "payloads", "exchanges", "actions", "notices", "refusals"),
    *("rate_calls", "sessions", "states", "files"),
)

_logger = logging.getLogger("relay")


class Cleaner:
    """Cleans for one process, when it has the duty."""

    def __init__(self, ledger: Ledger, settings: Settings, *, period: float = PERIOD) -> None:
        self._ledger = ledger
        self._keep = keep_of(settings)
        self._period = period
        self._owner = uuid4().hex
        self._deleted: Counter[str] = Counter()
        self._told_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Clean from now on, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Let another process clean. What was deleted is told."""
        if self._task is not None:
            await end_tasks([self._task])
        self._tell()
        try:
            await self._ledger.commit(lambda tx: give_up_duty(tx, DUTY, self._owner))
        except LedgerUnavailable as error:
            _logger.warning("the duty of cleaning is left to its end: %s", error)

    async def _run(self) -> None:
        pause = self._period
        while True:
            await asyncio.sleep(pause)
            pause = self._period
            try:
                if not self._ledger.is_behind and await self._has_duty():
                    cleaned = await self._clean()
                    pause = self._period if cleaned.is_done else min(PAUSE, self._period)
            except LedgerUnavailable as error:
                _logger.warning("the ledger is not cleaned now: %s", error)
            except Exception:
                _logger.exception("cleaning the ledger failed")

    async def _clean(self) -> Cleaned:
        """Run a round to its end, which is near, so that a stop leaves nothing untold."""
        cleaning = asyncio.ensure_future(
            clean(self._ledger, self._keep, self._ledger.clock() / 1e6)
        )
        try:
            return await asyncio.shield(cleaning)
        finally:
            self._note(await cleaning)

    async def _has_duty(self) -> bool:
        return await self._ledger.commit(lambda tx: take_duty(tx, DUTY, self._owner, LEASE))

    def _note(self, cleaned: Cleaned) -> None:
        if cleaned.early:
            log.warning(
                "ledger.shortened",
                reason=f"its rows take more than RELAY_LEDGER_MAX_BYTES, {self._keep.max_bytes}",
                deliveries=cleaned.early,
                bytes_before=cleaned.bytes_before,
                bytes_after=cleaned.bytes_after,
            )
        counts = msgspec.structs.asdict(cleaned)
        self._deleted.update({name: counts[name] for name in _COUNTS if counts[name]})
        if time.monotonic() - self._told_at >= TOLD_EVERY:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        if self._deleted:
            log.info("ledger.cleaned", **self._deleted)
            self._deleted.clear()
