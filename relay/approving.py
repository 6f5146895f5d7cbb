"""Approves deploys that wait for it. What an approval means is decided by the worker."""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis.asyncio import Redis
from rq.registry import ScheduledJobRegistry

from config.settings import Settings
from relay.records import JOB_PREFIX
from relay.replays import ACTIVE_IN_LUA, Done, Wish

_APPROVE = (
    ACTIVE_IN_LUA
    + """
local job, scheduled = unpack(KEYS)
local id, by, now, dry = unpack(ARGV)
local status, description, waiting, approved = unpack(
  redis.call('HMGET', job, 'status', 'description', 'waiting', 'approved_by'))
if not status or string.sub(description or '', 1, 7) ~= 'deploy:' then return {'unknown', ''} end
if not active[status] then return {'gone', status} end
if approved then return {'approved', approved} end
if string.sub(waiting or '', 1, 9) ~= 'approval ' then return {'unasked', ''} end
if dry == '1' then return {'', ''} end
redis.call('HSET', job, 'approved_by', by)
redis.call('ZADD', scheduled, 'XX', now, id)
return {'', ''}
"""
)


async def approve(redis: Redis, settings: Settings, wishes: Sequence[Wish]) -> list[Done]:
    """Approve each that waits for it, and have it go on at once.

    Raises redis.exceptions.RedisError; what was done before stays done.
    """
    done = []
    for wish in wishes:
        told, other = await redis.eval(
            _APPROVE,
            *(2, JOB_PREFIX + wish.id, ScheduledJobRegistry.key_template.format(settings.queue)),
            *(wish.id, wish.by, int(time.time()), int(wish.dry)),
        )
        done.append(Done(wish.id, refusal=told.decode(), other=other.decode()))
    return done
