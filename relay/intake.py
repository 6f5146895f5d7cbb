"""Commits verified deliveries to Redis; only what is stored here is acknowledged to the sender.

Group commit: all deliveries that wait at one moment are written by one script call in one round
trip. Within it each delivery is one atomic step: the duplicate check, the RQ job and, as fields of
that job, the record that the audit can be checked against. Their audit lines are written before
their senders are answered.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.registry import FailedJobRegistry, FinishedJobRegistry

from relay import audit
from relay.batching import GroupCommit
from relay.errors import Malformed, StoreUnavailable
from relay.events import MAX_EVENT, Delivery
from relay.packing import pack, packed
from relay.records import (
    DELIVERY_JOB,
    JOB_PREFIX,
    QUEUE_PREFIX,
    QUEUES_KEY,
    RETRY_INTERVALS,
    Lifetimes,
    job_data,
    shared_fields,
)
from relay.store import execute

Verdict = Literal["queued", "requeued", "duplicate"]

MAX_BATCH = 256
"""Deliveries written by one script call; bounds how long Redis is busy with it."""

JOB_TIMEOUT = 60
"""Seconds that matching a delivery and queueing its deploys may take."""

# A delivery is known by its id or, under whatever id it comes, by its body. A known one is queued
# again if all it led to has ended without a success: its own job failed, it had no deploys, or one
# of them failed. `receipt` tells a repeated write of ours, whose first answer got lost, from a
# repeated delivery. The batch comes as one packed argument, since taking hundreds of arguments
# apart costs the client more than all the rest.
_STORE = """
local queue, queues, finished, failed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, window, retries, receipt = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local shared, batch = cmsgpack.unpack(ARGV[5]), cmsgpack.unpack(ARGV[6])
local ended = {failed = true, stopped = true, canceled = true}

local function may_run_again(job, status)
  if ended[status] then return true end
  if status ~= 'finished' then return false end
  local deploys = redis.call('HGET', job, 'deploys')
  if not deploys or deploys == '' then return true end
  for id in string.gmatch(deploys, '%S+') do
    if ended[redis.call('HGET', prefix .. id, 'status')] then return true end
  end
  return false
end

redis.call('SADD', queues, queue)
local answers = {}
-- The job itself comes last: should Redis refuse a command before it, the next try finds no trace
-- of a delivery that is not queued.
for number, delivery in ipairs(batch) do
  local id, body, data, description = unpack(delivery)
  local job, ours = prefix .. id, receipt .. number
  local verdict
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
  elseif may_run_again(job, status) then
    redis.call('ZREM', finished, id)
    redis.call('ZREM', failed, id)
    redis.call('PERSIST', job)
    redis.call('HDEL', job, 'deploys', 'started_at', 'ended_at', 'worker_name', 'exc_info',
               'number_of_retries')
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


class Stored(NamedTuple):
    """What became of a delivery, and the id it is known by: that of the first one with its body."""

    verdict: Verdict
    id: str


Packed = tuple[str, str, msgspec.Raw, str]
"""A delivery for the script: its id, its body's key, RQ's data, RQ's description."""


class _Waiting(NamedTuple):
    since: float
    packed: Packed
    fields: Mapping[str, Any]
    """What the audit says of the delivery."""


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
        replicas: int = 0,
    ) -> None:
        """``window``, ``failure_ttl`` and ``timeout`` are seconds. A delivery counts as stored when
        so many ``replicas`` have it too."""
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
        ]
        self._encode = msgspec.json.Encoder().encode
        self._group = GroupCommit(self._commit, most=MAX_BATCH)
        self._failed_at = -1.0
        self._log = audit.bound()

    async def store(
        self, delivery: Delivery, fingerprint: str, fields: Mapping[str, Any]
    ) -> Stored:
        """Return once Redis has the delivery, or has had it before, and the audit says so.

        ``fields`` are the audit's. Raises StoreUnavailable, no later than twice the timeout, if
        Redis refuses or does not answer. The delivery may have been stored all the same; a sender
        that retries is then told that it is a duplicate. Raises Malformed for an absurd event.
        """
        event = delivery.event
        encoded = self._encode(delivery)
        if len(encoded) > MAX_EVENT:
            raise Malformed(f"an event of {len(encoded)} bytes after all that can be was cut")
        waiting = _Waiting(
            time.monotonic(),
            (
                delivery.id,
                f"relay:body:{delivery.source}:{fingerprint}",
                packed(job_data(DELIVERY_JOB, encoded.decode())),
                f"delivery: {event.kind} {event.repo}@{event.sha[:12]}",
            ),
            fields,
        )
        return await self._group.submit(waiting)

    async def drain(self) -> None:
        """Return once nothing waits to be written."""
        await self._group.drain()

    async def ping(self) -> None:
        """Raises StoreUnavailable unless Redis answers in time."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis is not reachable ({type(error).__name__})") from None

    async def _commit(self, batch: Sequence[_Waiting]) -> Sequence[Stored]:
        if batch[0].since <= self._failed_at:
            # It waited while Redis was found to be away. To try again for every batch that did
            # would keep the last sender waiting for many timeouts.
            raise StoreUnavailable("Redis did not take those before it")
        try:
            audit.flush()
            answers = await self._write([waiting.packed for waiting in batch])
            stored = [
                Stored(cast(Verdict, verdict.decode()), known_as.decode())
                for verdict, known_as in zip(answers[::2], answers[1::2], strict=True)
            ]
            for waiting, (verdict, known_as) in zip(batch, stored, strict=True):
                self._say(verdict, known_as, waiting.fields)
            audit.flush()
        except (RedisError, OSError, TimeoutError) as error:
            self._failed_at = time.monotonic()
            raise StoreUnavailable(f"Redis did not take it ({type(error).__name__})") from None
        return stored

    async def _write(self, packed: list[Packed]) -> list[bytes]:
        args: list[str | bytes | int] = [
            JOB_PREFIX,
            self._window,
            len(RETRY_INTERVALS),
            os.urandom(8).hex() + ":",
            pack(shared_fields(queue=self._queue, lifetimes=self._lifetimes)),
            pack(packed),
        ]
        async with asyncio.timeout(self._timeout):
            if self._replicas:
                [answers] = await execute(
                    self._redis,
                    lambda pipe: pipe.eval(_STORE, len(self._keys), *self._keys, *args),
                    replicas=self._replicas,
                    patience=self._timeout / 2,
                )
            else:
                answers = await self._script(keys=self._keys, args=args)
        return cast(list[bytes], answers)

    def _say(self, verdict: Verdict, known_as: str, fields: Mapping[str, Any]) -> None:
        if verdict == "duplicate":
            self._log.info("delivery.duplicate", first=known_as, **fields)
        elif verdict == "requeued":
            self._log.info("delivery.queued", again=True, first=known_as, **fields)
        else:
            self._log.info("delivery.queued", again=False, **fields)
