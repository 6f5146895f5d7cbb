"""Refused requests are counted in memory and written to the ledger in sums, once a second at most.

Anybody can cause refusals, so none of them may cost a commit.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec

from relay.errors import LedgerUnavailable
from relay.ledger.ledger import Ledger
from relay.ledger.refusals import RefusalSum, add_refusals

PAUSE = 1.0
"""Seconds between two writes at least."""

MOST_SUMS = 1_000
"""Sums that wait to be written at most: those of many hours while the ledger takes nothing."""

HOUR = 3_600

_Key = tuple[int, str, int]


class Refusals:
    """The refusals of one receiver process that are not written yet."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._sums: dict[_Key, RefusalSum] = {}
        self._has_some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Write what waits, and stop. What the ledger does not take is lost."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._write()

    def add(self, source: str, status: int, reason: str, remote: str, now: float) -> None:
        """Count a refused request. ``source`` is empty unless relay.yaml has it, ``status`` is that
        of the answer, ``now`` is in seconds since the Unix epoch."""
        key = (int(now) // HOUR, source, status)
        before = self._sums.get(key)
        if before is None and len(self._sums) >= MOST_SUMS:
            return
        self._sums[key] = RefusalSum(
            hour=key[0],
            source=source,
            status=status,
            count=1 + (before.count if before else 0),
            last_at=now,
            last_reason=_storable(reason),
            last_remote=_storable(remote),
        )
        self._has_some.set()

    async def _run(self) -> None:
        while True:
            await self._has_some.wait()
            await self._write()
            await asyncio.sleep(PAUSE)

    async def _write(self) -> None:
        sums, self._sums = self._sums, {}
        self._has_some.clear()
        if not sums:
            return
        try:
            await self._ledger.commit(lambda tx: add_refusals(tx, list(sums.values())))
        except LedgerUnavailable:
            self._put_back(sums)

    def _put_back(self, sums: dict[_Key, RefusalSum]) -> None:
        for key, older in sums.items():
            newer = self._sums.get(key)
            if newer is not None:
                total = older.count + newer.count
                self._sums[key] = msgspec.structs.replace(newer, count=total)
            elif len(self._sums) < MOST_SUMS:
                self._sums[key] = older
        self._has_some.set()


def _storable(text: str) -> str:
    """Return a text as the database takes it: headers may hold bytes that are no UTF-8."""
    return text[:300].encode(errors="replace").decode()
