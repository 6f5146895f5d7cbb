"""Puts deliveries into RQ's queue: the script that does it, and what it is given of each.

One call takes many. Within it each delivery is one atomic step: the duplicate check, the RQ job
and, as fields of that job, the record that the audit can be checked against.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry

from relay.errors import BatchRefused, RedisUnavailable
from relay.events.event import Delivery
from relay.pace import KEPT, pace_key
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
from relay.store import execute, faults_the_command, name_of

Verdict = Literal["queued", "requeued", "duplicate", "spooled"]

JOB_TIMEOUT = 60
"""Seconds that matching a delivery and queueing its deploys may take."""

# A delivery is known by its id or, under whatever id it comes, by its body. A known one is queued
# again if it may run again. `receipt` tells a repeated write of ours, whose first answer got lost,
# from a repeated delivery; a delivery keeps it on its way through the spool. The batch comes as one
# packed argument, since taking hundreds of arguments apart costs the client more than all the rest.
_STORE = (
    MAY_RUN_AGAIN
    + """
local queue, queues, finished, failed, canceled, pace = unpack(KEYS)
local prefix, window, retries, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[6]
local shared, batch = cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5])
local new = 0

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
    new = new + 1
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
               'number_of_retries', 'cancelled_by', 'stripped')
    -- One whose details are not kept any more has them again from whoever delivers it again.
    redis.call('HSETNX', job, 'data', data)
    redis.call('HSET', job, 'status', 'queued', 'receipt', ours, 'retries_left', retries)
    redis.call('HINCRBY', job, 'redeliveries', 1)
    redis.call('RPUSH', queue, id)
    new = new + 1
    verdict = 'requeued'
  else
    redis.call('HINCRBY', job, 'redeliveries', 1)
    verdict = 'duplicate'
  end
  answers[number * 2 - 1] = verdict
  answers[number * 2] = id
end
-- Not to be able to count must not make anybody send what is stored again.
if new > 0 then
  redis.pcall('HINCRBY', pace, 'deliveries', new)
  redis.pcall('EXPIRE', pace, kept)
end
return answers
"""
)


class Stored(NamedTuple):
    """What became of a delivery, and the id it is known by: that of the first one with its body."""

    verdict: Verdict
    id: str


Packed = tuple[str, str, msgspec.Raw, str, str]
"""A delivery for the script: its id, its body's key, RQ's data, RQ's description, the receipt."""


class Record(msgspec.Struct, frozen=True):
    """A delivery as the spool holds it."""

    receipt: str
    fingerprint: str
    delivery: Delivery


encode = msgspec.json.Encoder().encode
"""A delivery as the job has it, a record as the spool has it."""


class DeliveryQueue:
    """RQ's queue, as the receiver writes to it."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        *,
        window: float,
        failure_ttl: float,
        timeout: float,
        replicas: int,
    ) -> None:
        """``window``, ``failure_ttl`` and ``timeout`` are seconds.

        A delivery counts as stored when so many ``replicas`` have it too.
        """
        self._redis = redis
        self._name = name
        self._window = int(window)
        self._timeout = timeout
        self._replicas = replicas
        self._lifetimes = Lifetimes(JOB_TIMEOUT, result=self._window, failure=int(failure_ttl))
        self._script = redis.register_script(_STORE)
        self._keys = [
            f"{QUEUE_PREFIX}{name}",
            QUEUES_KEY,
            FinishedJobRegistry.key_template.format(name),
            FailedJobRegistry.key_template.format(name),
            CanceledJobRegistry.key_template.format(name),
        ]

    async def write(self, packed: Sequence[Packed]) -> list[Stored]:
        """What Redis says of deliveries. An empty batch finds out whether it would take one: the
        script writes the queue's name, which is there already. Raises RedisUnavailable and
        BatchRefused."""
        args: list[str | bytes | int] = [
            JOB_PREFIX,
            self._window,
            len(RETRY_INTERVALS),
            pack(shared_fields(queue=self._name, lifetimes=self._lifetimes)),
            pack(packed),
            KEPT,
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
        keys = [*self._keys, pace_key(time.time())]
        if not self._replicas:
            return cast(list[bytes], await self._script(keys=keys, args=args))
        [answers] = await execute(
            self._redis,
            lambda pipe: pipe.eval(_STORE, len(keys), *keys, *args),
            replicas=self._replicas,
            patience=self._timeout / 2,
        )
        return cast(list[bytes], answers)


def packed_record(record: Record, encoded: bytes) -> Packed:
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
