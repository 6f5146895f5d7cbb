"""Commits verified deliveries to Redis; only what is stored here is acknowledged to the sender.
While Redis takes none they are stored in the spool instead (relay/forwarding.py).

Group commit: all deliveries that wait at one moment are written by one script call in one round
trip (relay/queueing.py). Their audit lines are written before their senders are answered.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from relay import audit
from relay.audit import delivery_fields
from relay.batching import GroupCommit
from relay.errors import (
    BatchRefused,
    Malformed,
    RedisUnavailable,
    SpoolUnavailable,
    StoreUnavailable,
)
from relay.events.event import MAX_EVENT, Delivery
from relay.forwarding import Forwarder
from relay.metrics import tally
from relay.queueing import DeliveryQueue, Packed, Record, Stored, Verdict, encode, packed_record
from relay.spool import Spool

MAX_BATCH = 256
"""Deliveries written by one script call; bounds how long Redis is busy with it."""


class Readiness(NamedTuple):
    """Whether deliveries could be accepted now."""

    redis: str
    """``ok``, or why Redis would take none."""
    spool: str
    """``off``, ``empty``, ``in use``, or why it would take none."""
    accepts: bool


class _Waiting(NamedTuple):
    since: float
    packed: Packed
    record: Record
    fields: Mapping[str, Any]
    """What the audit says of the delivery."""


_decode = msgspec.json.Decoder(Record).decode


class Intake:
    """The way into the queue. One instance a process."""

    def __init__(
        self,
        redis: Redis,
        *,
        queue: str,
        window: float,
        failure_ttl: float,
        timeout: float,
        spool: Spool | None = None,
        replicas: int = 0,
    ) -> None:
        """``window``, ``failure_ttl`` and ``timeout`` are seconds.

        Without a ``spool`` nothing is accepted while Redis takes nothing. A delivery counts as
        stored when so many ``replicas`` have it too.
        """
        self._queue = DeliveryQueue(
            redis,
            queue,
            window=window,
            failure_ttl=failure_ttl,
            timeout=timeout,
            replicas=replicas,
        )
        self._receipts = map((os.urandom(8).hex() + ":%d").__mod__, itertools.count())
        self._group = GroupCommit(self._commit, most=MAX_BATCH)
        self._failed_at = -1.0
        self._forwarder = Forwarder(spool, self._forward, timeout=timeout) if spool else None
        self._log = audit.bound()

    async def start(self) -> None:
        """Begin to forward what the spool holds, if anything."""
        if self._forwarder is not None:
            await self._forwarder.start()

    async def stop(self) -> None:
        """Return once nothing waits to be written; what is in the spool stays there."""
        await self._group.drain()
        if self._forwarder is not None:
            await self._forwarder.stop()

    async def store(
        self, delivery: Delivery, fingerprint: str, fields: Mapping[str, Any]
    ) -> Stored:
        """Return once Redis has the delivery, or has had it before, or the spool has it, and the
        audit says so.

        ``fields`` are the audit's. Raises StoreUnavailable, no later than twice the timeout, or
        thrice if the spool's disk hangs, if neither takes it. The delivery may have been stored all
        the same; a sender that retries is then told that it is a duplicate. Raises Malformed for an
        absurd event.
        """
        encoded = encode(delivery)
        if len(encoded) > MAX_EVENT:
            raise Malformed(f"an event of {len(encoded)} bytes after all that can be was cut")
        record = Record(next(self._receipts), fingerprint, delivery)
        waiting = _Waiting(time.monotonic(), packed_record(record, encoded), record, fields)
        return await self._group.submit(waiting)

    async def readiness(self) -> Readiness:
        """Ask Redis whether it would take a delivery, unless it is known not to."""
        forwarder = self._forwarder
        redis = forwarder.away if forwarder is not None else ""
        spooling = forwarder is not None and forwarder.spooling
        if not spooling:
            try:
                await self._queue.write(())
            except StoreUnavailable as error:
                redis = str(error)
        if forwarder is None:
            return Readiness(redis or "ok", "off", accepts=not redis)
        if redis and not spooling:
            forwarder.redis_is_away(redis)
        trouble = await forwarder.trouble()
        return Readiness(
            redis or "ok",
            trouble or ("in use" if forwarder.spooling else "empty"),
            accepts=not (forwarder.spooling and trouble),
        )

    async def _commit(self, batch: Sequence[_Waiting]) -> Sequence[Stored]:
        if batch[0].since <= self._failed_at:
            # It waited while Redis was found to be away. To try again for every batch that did
            # would keep the last sender waiting for many timeouts.
            raise StoreUnavailable("those before it could not be stored")
        audit.flush()
        forwarder = self._forwarder
        try:
            while True:
                if forwarder is not None and forwarder.spooling:
                    reason = forwarder.away or "others wait in the spool"
                    if await forwarder.keep([encode(waiting.record) for waiting in batch]):
                        return self._spooled(batch, reason)
                try:
                    return await self._store(batch)
                except RedisUnavailable as error:
                    if forwarder is None:
                        raise
                    forwarder.redis_is_away(str(error))
        except (RedisUnavailable, SpoolUnavailable):
            self._failed_at = time.monotonic()
            raise

    async def _store(self, batch: Sequence[_Waiting]) -> Sequence[Stored]:
        stored = await self._queue.write([waiting.packed for waiting in batch])
        tally.stored([waiting.since for waiting in batch], time.monotonic())
        for waiting, (verdict, known_as) in zip(batch, stored, strict=True):
            self._say(verdict, known_as, waiting.fields)
        audit.flush()
        return stored

    def _spooled(self, batch: Sequence[_Waiting], reason: str) -> Sequence[Stored]:
        for waiting in batch:
            self._log.warning("delivery.spooled", reason=reason, **waiting.fields)
        tally.stored([waiting.since for waiting in batch], time.monotonic())
        audit.flush()
        return [Stored("spooled", waiting.record.delivery.id) for waiting in batch]

    async def _forward(self, records: Sequence[bytes]) -> None:
        """Have Redis take what was spooled; without any, ask whether it would. Raises BatchRefused
        for what it will never take, and StoreUnavailable."""
        audit.flush()
        try:
            spooled = [_decode(record) for record in records]
        except msgspec.DecodeError as error:
            raise BatchRefused(f"a record is not understood ({error})") from None
        packed = [packed_record(record, encode(record.delivery)) for record in spooled]
        try:
            stored = await self._queue.write(packed)
        except BatchRefused as error:
            if len(spooled) == 1:
                fields = delivery_fields(spooled[0].delivery)
                self._log.error("delivery.failed", reason=str(error), **fields)
            raise
        now = time.time()
        for record, (verdict, known_as) in zip(spooled, stored, strict=True):
            fields = delivery_fields(record.delivery)
            seconds = max(0, round(now - record.delivery.received_at, 3))
            self._log.info("delivery.forwarded", verdict=verdict, seconds=seconds, **fields)
            self._say(verdict, known_as, fields)
        audit.flush()

    def _say(self, verdict: Verdict, known_as: str, fields: Mapping[str, Any]) -> None:
        if verdict == "duplicate":
            self._log.info("delivery.duplicate", first=known_as, **fields)
        elif verdict == "requeued":
            self._log.info("delivery.queued", again=True, first=known_as, **fields)
        else:
            self._log.info("delivery.queued", again=False, **fields)
