"""Commits verified deliveries to Redis; only what is stored here is acknowledged to the sender.

Group commit: all deliveries that wait at one moment are written by one script call in one round
trip. Within it each delivery is one atomic step: the duplicate check, the RQ job and, as fields of
that job, the record that the audit can be checked against.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Literal, NamedTuple, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.registry import FailedJobRegistry, FinishedJobRegistry

from relay.errors import StoreUnavailable
from relay.events import Delivery
from relay.records import (
    DELIVERY_JOB,
    JOB_PREFIX,
    QUEUE_PREFIX,
    QUEUES_KEY,
    RETRY_INTERVALS,
    Lifetimes,
    job_fields,
)

Verdict = Literal["queued", "requeued", "duplicate"]

MAX_BATCH = 256
"""Deliveries written by one script call; bounds how long Redis is busy with it."""

JOB_TIMEOUT = 60
"""Seconds that matching a delivery and queueing its deploys may take."""

# A delivery is known by its id or, under whatever id it comes, by its body. A known one is queued
# again if all it led to has ended without a success: its own job failed, it had no deploys, or one
# of them failed. `receipt` tells a repeated write of ours, whose first answer got lost, from a
# repeated delivery.
_STORE = """
local queue, queues, finished, failed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, window, retries = ARGV[1], ARGV[2], ARGV[3]
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
local arg = 4
for key = 5, #KEYS, 2 do
  local job, body = KEYS[key], KEYS[key + 1]
  local id, receipt, count = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
  local verdict
  local status = redis.call('HGET', job, 'status')
  if not status then
    local first = redis.call('GET', body)
    local known = first and redis.call('HGET', prefix .. first, 'status')
    if known then id, job, status = first, prefix .. first, known end
  end
  if not status then
    redis.call('HSET', job, 'receipt', receipt, unpack(ARGV, arg + 3, arg + 2 + count))
    redis.call('SET', body, id, 'EX', window)
    redis.call('RPUSH', queue, id)
    verdict = 'queued'
  elseif redis.call('HGET', job, 'receipt') == receipt then
    verdict = 'queued'
  elseif may_run_again(job, status) then
    redis.call('ZREM', finished, id)
    redis.call('ZREM', failed, id)
    redis.call('PERSIST', job)
    redis.call('HDEL', job, 'deploys', 'started_at', 'ended_at', 'worker_name', 'exc_info',
               'number_of_retries')
    redis.call('HSET', job, 'status', 'queued', 'receipt', receipt, 'retries_left', retries)
    redis.call('HINCRBY', job, 'redeliveries', 1)
    redis.call('RPUSH', queue, id)
    verdict = 'requeued'
  else
    redis.call('HINCRBY', job, 'redeliveries', 1)
    verdict = 'duplicate'
  end
  answers[#answers + 1] = verdict
  answers[#answers + 1] = id
  arg = arg + 3 + count
end
return answers
"""


class Stored(NamedTuple):
    """What became of a delivery, and the id it is known by: that of the first one with its body."""

    verdict: Verdict
    id: str


class _Waiting(NamedTuple):
    id: str
    body_key: str
    fields: list[str | bytes | int]
    answer: asyncio.Future[Stored]


class Intake:
    """The way into the queue. One instance a process; ``run`` does the writing."""

    def __init__(
        self, redis: Redis, *, queue: str, window: float, failure_ttl: float, timeout: float
    ) -> None:
        """``window``, ``failure_ttl`` and ``timeout`` are seconds."""
        self._redis = redis
        self._queue = queue
        self._window = int(window)
        self._timeout = timeout
        self._lifetimes = Lifetimes(JOB_TIMEOUT, result=self._window, failure=int(failure_ttl))
        self._script = redis.register_script(_STORE)
        self._keys = [
            f"{QUEUE_PREFIX}{queue}",
            QUEUES_KEY,
            FinishedJobRegistry.key_template.format(queue),
            FailedJobRegistry.key_template.format(queue),
        ]
        self._encode = msgspec.json.Encoder().encode
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    async def store(self, delivery: Delivery, digest: str) -> Stored:
        """Return once Redis has the delivery, or has had it before.

        Raises StoreUnavailable if Redis refuses or does not answer in time. The delivery may have
        been stored all the same; a sender that retries is then told that it is a duplicate.
        """
        event = delivery.event
        fields = job_fields(
            DELIVERY_JOB,
            (self._encode(delivery).decode(),),
            queue=self._queue,
            description=f"delivery: {event.kind} {event.repo}@{event.sha[:12]}",
            lifetimes=self._lifetimes,
        )
        answer: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        body_key = f"relay:body:{delivery.source}:{digest}"
        self._waiting.append(_Waiting(delivery.id, body_key, fields, answer))
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise StoreUnavailable("Redis did not answer in time") from None

    async def run(self) -> None:
        """Write whatever waits until ``close`` is called and nothing waits any more."""
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            # Whoever has given up waiting has been told to come again.
            batch = [waiting for waiting in batch if not waiting.answer.done()]
            if batch:
                await self._commit(batch)

    def close(self) -> None:
        """Let ``run`` end."""
        self._closing = True
        self._wake.set()

    async def ping(self) -> None:
        """Raises StoreUnavailable unless Redis answers in time."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis is not reachable ({type(error).__name__})") from None

    async def _commit(self, batch: list[_Waiting]) -> None:
        keys = list(self._keys)
        args: list[str | bytes | int] = [JOB_PREFIX, self._window, len(RETRY_INTERVALS)]
        for waiting in batch:
            keys += (f"{JOB_PREFIX}{waiting.id}", waiting.body_key)
            args += (waiting.id, os.urandom(8).hex(), len(waiting.fields), *waiting.fields)
        try:
            answers = cast(list[bytes], await self._script(keys=keys, args=args))
        except (RedisError, OSError, TimeoutError) as error:
            for waiting in batch:
                if not waiting.answer.done():
                    reason = f"Redis did not take it ({type(error).__name__})"
                    waiting.answer.set_exception(StoreUnavailable(reason))
            return
        for waiting, verdict, known_as in zip(batch, answers[::2], answers[1::2], strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(
                    Stored(cast(Verdict, verdict.decode()), known_as.decode())
                )
