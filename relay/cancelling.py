"""Cancels what waits. A worker that takes the job at the same moment wins or loses, never both."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.rate_limit import ACQUIRE_AND_ENQUEUE_SCRIPT
from rq.registry import CanceledJobRegistry, ScheduledJobRegistry
from rq.utils import utcformat

from config.settings import Settings
from relay.records import JOB_PREFIX, QUEUE_PREFIX, TURNS_PREFIX
from relay.replays import Done, Wish
from relay.statuses import Kind

# RQ's scheduler reads a job and writes it back later, so what is taken from the schedule here may
# come back to the queue. Our field `cancelled_by` then has whoever runs it end at once.
_CANCEL = f"""
local function fill_slots(KEYS, ARGV)
{ACQUIRE_AND_ENQUEUE_SCRIPT}
end
local job, queue, scheduled, canceled, turns = unpack(KEYS)
local id, kind, by, now, at, ttl, dry = unpack(ARGV)
local queue_prefix, job_prefix, rate_prefix = unpack(ARGV, 8)
local status, description, limit = unpack(redis.call('HMGET', job, 'status', 'description',
                                                     'rate_limit_key'))
if not status or string.sub(description or '', 1, #kind + 1) ~= kind .. ':' then
  return {{'unknown', ''}}
end
if status == 'started' then return {{'started', ''}} end
if status ~= 'queued' and status ~= 'scheduled' and status ~= 'rate_limited' then
  return {{'gone', status}}
end
if dry == '1' then return {{'', ''}} end
redis.call('LREM', queue, 0, id)
redis.call('ZREM', scheduled, id)
redis.call('ZREM', turns, id)
redis.call('HSET', job, 'status', 'canceled', 'cancelled_by', by, 'ended_at', at)
redis.call('EXPIRE', job, ttl)
redis.call('ZREMRANGEBYSCORE', canceled, '-inf', now - ttl)
redis.call('ZADD', canceled, now, id)
if limit then
  local config = rate_prefix .. limit
  local bound = redis.call('HGET', config, 'concurrency')
  redis.call('ZREM', config .. ':rate_limited', id)
  if redis.call('ZREM', config .. ':allowed', id) == 1 and bound then
    fill_slots({{config .. ':allowed', config .. ':rate_limited'}},
               {{bound, now, at, queue_prefix, job_prefix}})
  end
end
return {{'', ''}}
"""


async def cancel(
    redis: Redis, settings: Settings, kind: Kind, wishes: Sequence[Wish]
) -> list[Done]:
    """Cancel each that waits.

    Raises redis.exceptions.RedisError; what was done before stays done.
    """
    done = []
    for wish in wishes:
        told, other = await redis.eval(
            _CANCEL,
            5,
            JOB_PREFIX + wish.id,
            QUEUE_PREFIX + settings.queue,
            ScheduledJobRegistry.key_template.format(settings.queue),
            CanceledJobRegistry.key_template.format(settings.queue),
            TURNS_PREFIX + wish.id.partition("--")[0],
            *(wish.id, kind, wish.by, int(time.time()), utcformat(datetime.now(UTC))),
            *(int(settings.dead_letter_ttl), int(wish.dry)),
            *(QUEUE_PREFIX, JOB_PREFIX, f"{RQ_KEY_PREFIX}:rl:"),
        )
        done.append(Done(wish.id, refusal=told.decode(), other=other.decode()))
    return done
