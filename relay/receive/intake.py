"""Verified deliveries are committed to the ledger in groups; only then are their senders answered.

All deliveries that wait at one moment are one transaction. After its commit the audit has their
lines, one wake-up is written for those that are to be routed, and their senders are answered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from relay import audit
from relay.audit_fields import deploy_fields
from relay.errors import LedgerUnavailable
from relay.events.ids import public_id
from relay.group_commit import GroupCommit
from relay.ledger.intake import NewDelivery, StoredDelivery, store_delivery
from relay.ledger.ledger import MOST_OF_A_RECEIVER, Ledger
from relay.ledger.refs import RefStates
from relay.ledger.transaction import Transaction
from relay.metrics import counters


class DeliveryWaker(Protocol):
    """Has a worker look at deliveries; see relay.queue.wakeups."""

    def wake_deliveries(self, first: int, last: int) -> None:
        """Have a worker route the deliveries with ids from ``first`` to ``last``. Never waits, and
        never raises."""


class _Item(NamedTuple):
    since: float
    new: NewDelivery
    size: int
    fields: Mapping[str, Any]


class Intake:
    """Stores deliveries in the ledger. One instance a process."""

    def __init__(self, ledger: Ledger, waker: DeliveryWaker) -> None:
        self._ledger = ledger
        self._waker = waker
        self._states = RefStates()
        self._group: GroupCommit[_Item, StoredDelivery | Exception] = GroupCommit(
            self._commit, most=MOST_OF_A_RECEIVER
        )
        self.failure: LedgerUnavailable | None = None
        """Why the last batch was not stored; None after one that was."""
        self._failed_at = -1.0
        self._log = audit.bound()

    async def store(self, new: NewDelivery, size: int, fields: Mapping[str, Any]) -> StoredDelivery:
        """Return the stored delivery, once it is on the disk and in the audit.

        ``size`` is the bytes of its body, ``fields`` those of its audit lines except its id. Raises
        LedgerUnavailable where it may not have been stored; if it was, the sender's retry is
        answered as a duplicate. Raises AuditUnavailable.
        """
        result = await self._group.submit(_Item(time.monotonic(), new, size, fields))
        if isinstance(result, Exception):
            raise result
        return result

    async def stop(self) -> None:
        """Return once nothing waits to be committed."""
        await self._group.drain()

    async def _commit(self, batch: Sequence[_Item]) -> Sequence[StoredDelivery | Exception]:
        if self.failure is not None and batch[0].since <= self._failed_at:
            # It waited while the ledger refused. If each waiting batch tried again, the last
            # sender would wait for many timeouts.
            raise self.failure
        # Nothing is stored that the audit cannot take.
        audit.flush()
        try:
            stored = await self._store(batch)
        except LedgerUnavailable as error:
            self._failed_at, self.failure = time.monotonic(), error
            raise
        self.failure = None
        counters.stored([item.since for item in batch], time.monotonic())
        for item, one in zip(batch, stored, strict=True):
            if isinstance(one, StoredDelivery):
                self._tell(item, one)
        self._wake(stored)
        audit.flush()
        return stored

    async def _store(self, batch: Sequence[_Item]) -> Sequence[StoredDelivery | Exception]:
        async def work(tx: Transaction) -> list[StoredDelivery]:
            return [await store_delivery(tx, self._states, item.new) for item in batch]

        try:
            return await self._ledger.commit(work, since=batch[0].since)
        except LedgerUnavailable:
            raise
        except Exception as error:
            if len(batch) == 1:
                return [error]
        # One of them cannot be stored and nothing was committed, so each is stored alone.
        return [one for item in batch for one in await self._store([item])]

    def _wake(self, stored: Sequence[StoredDelivery | Exception]) -> None:
        queued = [
            one.id
            for one in stored
            if isinstance(one, StoredDelivery) and one.verdict != "known" and one.status == "queued"
        ]
        if queued:
            self._waker.wake_deliveries(queued[0], queued[-1])

    def _tell(self, item: _Item, stored: StoredDelivery) -> None:
        log = self._log
        fields = {**item.fields, "delivery": public_id("delivery", stored.id)}
        log.info("delivery.received", bytes=item.size, **fields)
        if stored.uncertain:
            fields["uncertain"] = stored.uncertain
        if stored.other_body:
            fields["other_body"] = True
        for line in stored.superseded:
            log.info(
                "deploy.superseded",
                by=fields["delivery"],
                reason=stored.superseded_because,
                **deploy_fields(line),
            )
        if stored.first:
            log.info("delivery.duplicate", first=public_id("delivery", stored.first), **fields)
        elif stored.verdict == "late":
            log.info("delivery.late", reason=stored.reason, **fields)
        elif stored.status == "ignored":
            log.info("delivery.ignored", reason=stored.reason, **fields)
        else:
            log.info("delivery.queued", **fields)
