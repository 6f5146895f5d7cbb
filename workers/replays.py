"""Replays of deploys: the same call again, by the relay.yaml of now, as a job of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from rq.rate_limit import RateLimitRegistry
from rq.registry import ScheduledJobRegistry

from config.loading import load
from config.model import Target
from config.settings import Settings
from relay.identity import arrival, changed_at, deploy_identity, transition
from relay.reading import read_argument
from relay.records import JOB_PREFIX, QUEUE_PREFIX, QUEUES_KEY, STRIPPED_FIELD
from relay.replays import ACTIVE_IN_LUA, Done, Wish
from workers.deploys import (
    RATE_PREFIX,
    Deploy,
    deploy_fields,
    fill_slots,
    latest_key,
    limit_key,
)

# The replay becomes the newest deploy of its branch, but does not move the branch: where that is
# (`after`) stays, or a late second webhook for a push would count as a new one. It waits for no
# newer one (`at`, `burst`), and wakes what it supersedes, as workers/deploys.py does.
_REPLAY = (
    ACTIVE_IN_LUA
    + """
local queue, queues, limits, old, identity, latest, delivery, scheduled = unpack(KEYS)
local prefix, rate_prefix, now, old_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local forced, named, by, name = ARGV[5] == '1', ARGV[6] == '1', ARGV[7], ARGV[8]
local transition, after, window, limit, concurrency, dry = unpack(ARGV, 9, 14)
local supersede, changed = unpack(ARGV, 15, 16)
local ended = {failed = true, stopped = true, canceled = true}

local function status_of(id) return id and redis.call('HGET', prefix .. id, 'status') end

local status, replay, cancelled = unpack(redis.call('HMGET', old, 'status', 'replayed_by',
                                                    'cancelled_by'))
if not status then return {'unknown', ''} end
local replayed = status_of(replay)
if replayed and active[replayed] then return {'replaying', replay} end
if active[status] then return {'active', status} end
local same = redis.call('HGET', identity, 'job')
local its = status_of(same)
if its and active[its] then return {'busy', same} end
if not forced then
  if replayed then return {'replayed', replay} end
  if not ended[status] and not cancelled then return {'succeeded', ''} end
  if its == 'finished' and same ~= old_id then return {'done', same} end
  local newest = redis.call('HGET', latest, 'job')
  if not named and newest and newest ~= old_id then return {'overtaken', newest} end
end
if dry == '1' then return {'', ''} end

local number, id = 1, name
while redis.call('EXISTS', prefix .. id) == 1 do
  number = number + 1
  id = name .. '-' .. number
end
redis.call('SADD', queues, queue)
redis.call('HSET', identity, 'job', id)
redis.call('HSETNX', identity, 'transition', transition)
redis.call('EXPIRE', identity, window)
local newest = redis.call('HGET', latest, 'job')
if newest and supersede == '1' then redis.call('ZADD', scheduled, 'XX', math.floor(now), newest) end
redis.call('HSET', latest, 'job', id)
redis.call('HDEL', latest, 'at', 'burst')
if redis.call('HSETNX', latest, 'after', after) == 1 and changed ~= '' then
  redis.call('HSET', latest, 'changed', changed)
end
redis.call('EXPIRE', latest, window)
redis.call('HSET', prefix .. id, 'replay_of', old_id, 'requested_by', by, unpack(ARGV, 17))
redis.call('HSET', old, 'replayed_by', id)
local deploys = redis.call('HGET', delivery, 'deploys')
if deploys then
  local ids = {}
  for one in string.gmatch(deploys, '%S+') do ids[#ids + 1] = one == old_id and id or one end
  redis.call('HSET', delivery, 'deploys', table.concat(ids, ' '))
end
redis.call('SADD', limits, limit)
redis.call('HSET', rate_prefix .. limit, 'concurrency', concurrency)
redis.call('ZADD', rate_prefix .. limit .. ':rate_limited', now, id)
return {'', id}
"""
)


async def replay_deploys(redis: Redis, settings: Settings, wishes: Sequence[Wish]) -> list[Done]:
    """Queue a deploy like the old one for each wish, in their order.

    Raises ConfigError where relay.yaml is not valid, and redis.exceptions.RedisError; what was done
    before stays done, and asking for it again does no harm.
    """
    targets = load(settings.config, secrets_of=()).config.targets
    return [await _replay(redis, settings, targets, wish) for wish in wishes]


async def _replay(
    redis: Redis, settings: Settings, targets: Mapping[str, Target], wish: Wish
) -> Done:
    key = JOB_PREFIX + wish.id
    fields: Any = await redis.hmget(key, ["data", "description", STRIPPED_FIELD])
    data, description, stripped = fields
    if not (description or b"").startswith(b"deploy:"):
        return Done(wish.id, refusal="unknown")
    deploy = read_argument(data or b"", Deploy)
    if deploy is None:
        return Done(wish.id, refusal="unreadable" if stripped is None else "stripped")
    target = targets.get(deploy.target)
    if target is None:
        return Done(wish.id, refusal="target", other=deploy.target)
    identity = deploy_identity(deploy.target, deploy.event)
    limit = limit_key(deploy.target)
    keys = (
        QUEUE_PREFIX + settings.queue,
        QUEUES_KEY,
        RateLimitRegistry.rl_keys_key,
        key,
        f"relay:deploy:{identity}",
        latest_key(deploy),
        JOB_PREFIX + deploy.delivery,
        ScheduledJobRegistry.key_template.format(settings.queue),
    )
    async with redis.pipeline(transaction=True) as pipe:
        pipe.eval(
            _REPLAY,
            len(keys),
            *keys,
            *(JOB_PREFIX, RATE_PREFIX, time.time(), wish.id),
            *(int(wish.forced), int(wish.named), wish.by, f"{deploy.target}--{identity}"),
            *(transition(deploy.event), arrival(deploy.event)[1], max(1, int(259_200))),
            *(limit, target.concurrency, int(wish.dry)),
            *(int(target.newest_only), changed_at(deploy.event) or ""),
            *deploy_fields(deploy, target, settings.queue, int(settings.dead_letter_ttl)),
        )
        fill_slots(pipe, limit, target.concurrency)
        told, other = (await pipe.execute())[0]
    if told:
        return Done(wish.id, refusal=told.decode(), other=other.decode())
    return Done(wish.id, new=other.decode())
