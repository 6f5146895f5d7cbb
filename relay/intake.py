"""Commits verified deliveries to Redis; only what is stored here is acknowledged to the sender.
While Redis takes none they are stored in the spool instead (relay/forwarding.py).

Group commit: all deliveries that wait at one moment are written by one script call in one round
trip. Within it each delivery is one atomic step: the duplicate check, the RQ job and, as fields of
that job, the record that the audit can be checked against. Their audit lines are written before
their senders are answered.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry

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
from relay.events import MAX_EVENT, Delivery
from relay.forwarding import Forwarder
from relay.packing import pack, packed
from relay.records import (
    DELIVERY_JOB,
    JOB_PREFIX,
    MAY_RUN_AGAIN,
    QUEUE_PREFIX,
    QUEUES_KEY,
    RETRY_INTERVALS,
    Lifetimes,
    job_data,
    shared_fields,
)
from relay.spool import Spool
from relay.store import execute, faults_the_command, name_of

Verdict = Literal["queued", "requeued", "duplicate", "spooled"]

MAX_BATCH = 256
"""Deliveries written by one script call; bounds how long Redis is busy with it."""

JOB_TIMEOUT = 60
"""Seconds that matching a delivery and queueing its deploys may take."""

# A delivery is known by its id or, under whatever id it comes, by its body. A known one is queued
# again if it may run again. `receipt` tells a repeated write of ours, whose first answer got lost,
# from a repeated delivery; a delivery keeps it on its way through the spool. The batch comes as one
# packed argument, since taking hundreds of arguments apart costs the client more than all the rest.
_STORE = (
    MAY_RUN_AGAIN
    + """
local queue, queues, finished, failed, canceled = unpack(KEYS)
local prefix, window, retries = ARGV[1], ARGV[2], ARGV[3]
local shared, batch = cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5])

redis.call('SADD', queues, queue)
local answers = {}
-- The job itself comes last: should Redis refuse a command before it, the next try finds no trace
-- of a delivery that is not queued.
for number, delivery in ipairs(batch) do
  local id, body, data, description, ours = unpack(delivery)
  local job, verdict = prefix .. id, nil
  local status = redis.call('HGET', job, 'status')
  if not status then
    local first = redis.call('GET', body)
    local known = first and redis.call('HGET', prefix .. first, 'status')
    if known then id, job, status = first, prefix .. first, known end
  end
  if not status then
    redis.call('RPUSH', queue, id)
    redis.call('SET', body, id, 'EX', window)
    redis.call('HSET', job, 'receipt', ours, 'data', data, 'description', description,
               unpack(shared))
    verdict = 'queued'
  elseif redis.call('HGET', job, 'receipt') == ours then
    -- Written once more, since replicas are waited for only after a write.
    redis.call('HSET', job, 'receipt', ours)
    verdict = 'queued'
  elseif may_run_again(prefix, job, status) then
    redis.call('ZREM', finished, id)
    redis.call('ZREM', failed, id)
    redis.call('ZREM', canceled, id)
    redis.call('PERSIST', job)
    redis.call('HDEL', job, 'deploys', 'started_at', 'ended_at', 'worker_name', 'exc_info',
               'number_of_retries', 'cancelled_by')
    redis.call('HSET', job, 'status', 'queued', 'receipt', ours, 'retries_left', retries)
    redis.call('HINCRBY', job, 'redeliveries', 1)
    redis.call('RPUSH', queue, id)
    verdict = 'requeued'
  else
    redis.call('HINCRBY', job, 'redeliveries', 1)
    verdict = 'duplicate'
  end
  answers[number * 2 - 1] = verdict
  answers[number * 2] = id
end
return answers
"""
)


class Stored(NamedTuple):
    """What became of a delivery, and the id it is known by: that of the first one with its body."""

    verdict: Verdict
    id: str


class Readiness(NamedTuple):
    """Whether deliveries could be accepted now."""

    redis: str
    """``ok``, or why Redis would take none."""
    spool: str
    """``off``, ``empty``, ``in use``, or why it would take none."""
    accepts: bool


Packed = tuple[str, str, msgspec.Raw, str, str]
"""A delivery for the script: its id, its body's key, RQ's data, RQ's description, the receipt."""


class Record(msgspec.Struct, frozen=True):
    """A delivery as the spool holds it."""

    receipt: str
    fingerprint: str
    delivery: Delivery


class _Waiting(NamedTuple):
    since: float
    packed: Packed
    record: Record
    fields: Mapping[str, Any]
    """What the audit says of the delivery."""


_encode = msgspec.json.Encoder().encode
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
        self._redis = redis
        self._queue = queue
        self._window = int(window)
        self._timeout = timeout
        self._replicas = replicas
        self._lifetimes = Lifetimes(JOB_TIMEOUT, result=self._window, failure=int(failure_ttl))
        self._script = redis.register_script(_STORE)
        self._keys = [
            f"{QUEUE_PREFIX}{queue}",
            QUEUES_KEY,
            FinishedJobRegistry.key_template.format(queue),
            FailedJobRegistry.key_template.format(queue),
            CanceledJobRegistry.key_template.format(queue),
        ]
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
        encoded = _encode(delivery)
        if len(encoded) > MAX_EVENT:
            raise Malformed(f"an event of {len(encoded)} bytes after all that can be was cut")
        record = Record(next(self._receipts), fingerprint, delivery)
        waiting = _Waiting(time.monotonic(), _packed(record, encoded), record, fields)
        return await self._group.submit(waiting)

    async def readiness(self) -> Readiness:
        """Ask Redis whether it would take a delivery, unless it is known not to."""
        forwarder = self._forwarder
        redis = forwarder.away if forwarder is not None else ""
        spooling = forwarder is not None and forwarder.spooling
        if not spooling:
            try:
                await self._write(())
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
                    if await forwarder.keep([_encode(waiting.record) for waiting in batch]):
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
        stored = await self._write([waiting.packed for waiting in batch])
        for waiting, (verdict, known_as) in zip(batch, stored, strict=True):
            self._say(verdict, known_as, waiting.fields)
        audit.flush()
        return stored

    def _spooled(self, batch: Sequence[_Waiting], reason: str) -> Sequence[Stored]:
        for waiting in batch:
            self._log.warning("delivery.spooled", reason=reason, **waiting.fields)
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
        packed = [_packed(record, _encode(record.delivery)) for record in spooled]
        try:
            stored = await self._write(packed)
        except BatchRefused as error:
            if len(spooled) == 1:
                fields = delivery_fields(spooled[0].delivery)
                self._log.error("delivery.failed", reason=str(error), **fields)
            raise
        now = time.time()
        for record, (verdict, known_as) in zip(spooled, stored, strict=True):
            fields = delivery_fields(record.delivery)
            seconds = round(now - record.delivery.received_at, 3)
            self._log.info("delivery.forwarded", verdict=verdict, seconds=seconds, **fields)
            self._say(verdict, known_as, fields)
        audit.flush()

    async def _write(self, packed: Sequence[Packed]) -> list[Stored]:
        """What Redis says of deliveries. An empty batch finds out whether it would take one: the
        script writes the queue's name, which is there already. Raises RedisUnavailable and
        BatchRefused."""
        args: list[str | bytes | int] = [
            JOB_PREFIX,
            self._window,
            len(RETRY_INTERVALS),
            pack(shared_fields(queue=self._queue, lifetimes=self._lifetimes)),
            pack(packed),
        ]
        try:
            async with asyncio.timeout(self._timeout):
                answers = await self._run(args)
        except (RedisError, OSError, TimeoutError) as error:
            if faults_the_command(error):
                raise BatchRefused(f"Redis refuses it ({error})") from None
            raise RedisUnavailable(f"Redis takes nothing ({name_of(error)})") from None
        return [
            Stored(cast(Verdict, verdict.decode()), known_as.decode())
            for verdict, known_as in zip(answers[::2], answers[1::2], strict=True)
        ]

    async def _run(self, args: list[str | bytes | int]) -> list[bytes]:
        if not self._replicas:
            return cast(list[bytes], await self._script(keys=self._keys, args=args))
        [answers] = await execute(
            self._redis,
            lambda pipe: pipe.eval(_STORE, len(self._keys), *self._keys, *args),
            replicas=self._replicas,
            patience=self._timeout / 2,
        )
        return cast(list[bytes], answers)

    def _say(self, verdict: Verdict, known_as: str, fields: Mapping[str, Any]) -> None:
        if verdict == "duplicate":
            self._log.info("delivery.duplicate", first=known_as, **fields)
        elif verdict == "requeued":
            self._log.info("delivery.queued", again=True, first=known_as, **fields)
        else:
            self._log.info("delivery.queued", again=False, **fields)


def _packed(record: Record, encoded: bytes) -> Packed:
    """What Redis gets of a delivery, which is also given as JSON."""
    delivery = record.delivery
    event = delivery.event
    return (
        delivery.id,
        f"relay:body:{delivery.source}:{record.fingerprint}",
        packed(job_data(DELIVERY_JOB, encoded.decode())),
        f"delivery: {event.kind} {event.repo}@{event.sha[:12]}",
        record.receipt,
    )
