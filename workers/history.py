"""Bounds the history in Redis: of what ended well long ago only a little is kept.

A job of RQ's stays for as long as it recognises a duplicate, and with it its event, results and
attempts. Of the latest ``RELAY_HISTORY`` deliveries and deploys that ended well all of it stays;
older ones are stripped to what recognises a duplicate and what lists tell. What failed, is held or
may run again keeps all it has: somebody has to act on it.

A sorted set for each kind, ``relay:history:<queue>:<kind>``, has what ended well and is not
stripped, by the time of its end. RQ's own registry is in the order in which its jobs are forgotten,
which is another one where targets have windows of their own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, get_args

from redis.asyncio import Redis

from relay.attempts_kept import attempts_key
from relay.briefs import RESULTS_PREFIX
from relay.reading import left_of, read_end
from relay.records import JOB_PREFIX, MAY_RUN_AGAIN, STRIPPED_FIELD, SUPERSEDED_BY_FIELD
from relay.replays import ACTIVE_IN_LUA
from relay.statuses import Kind
from workers.along import Command

STEP = 50
"""Jobs of one kind that one step looks at; an event may have a mebibyte."""

# Whether a job is stripped is decided in the step that does it. What may run again, or has not
# ended, is left as it is, and is noted again by its own end or by that of one of its deploys. Only
# a delivery that waits for deploys of other deliveries, which end without it, is looked at again
# later. The hash is made anew because it keeps the form that a large field has given it. It is
# deleted first: a Redis without memory takes that, and then the rest as well.
_STRIP = (
    MAY_RUN_AGAIN
    + ACTIVE_IN_LUA
    + """
local history = KEYS[1]
local kind, prefix, results, attempts, now, most = unpack(ARGV, 1, 6)
local stripped, superseded_by = ARGV[7], ARGV[8]
local details = {data = true, exc_info = true, enqueued_at = true, started_at = true,
                 last_heartbeat = true, worker_name = true, rate_limit_key = true,
                 rate_limit_concurrency = true, enqueue_at_front = true}

local function waits_for(job)
  local whose
  local receipt, deploys = unpack(redis.call('HMGET', job, 'receipt', 'deploys'))
  for id in string.gmatch(deploys or '', '%S+') do
    local status, its = unpack(redis.call('HMGET', prefix .. id, 'status', 'receipt'))
    if active[status] then
      if (its or '') == (receipt or '') then return 'own' end
      whose = 'other'
    end
  end
  return whose
end

local function strip(job, id, left, newer)
  local fields, ttl = redis.call('HGETALL', job), redis.call('PTTL', job)
  local kept = {stripped, left}
  if newer ~= '' then kept[3], kept[4] = superseded_by, newer end
  for at = 1, #fields, 2 do
    if not details[fields[at]] and fields[at + 1] ~= '' then
      kept[#kept + 1] = fields[at]
      kept[#kept + 1] = fields[at + 1]
    end
  end
  redis.call('DEL', job, results .. id, attempts .. id)
  redis.call('HSET', job, unpack(kept))
  if ttl >= 0 then redis.call('PEXPIRE', job, math.max(ttl, 1)) end
end

local done = 0
for number = 9, #ARGV, 3 do
  -- Another worker may have done it meanwhile.
  if redis.call('ZCARD', history) <= tonumber(most) then break end
  local id, left, newer = unpack(ARGV, number, number + 2)
  local job = prefix .. id
  local status = redis.call('HGET', job, 'status')
  local is_over = status == 'finished'
  local waits = is_over and kind == 'delivery' and waits_for(job)
  if waits == 'other' or active[status] then
    redis.pcall('ZADD', history, 'XX', now, id)
  else
    redis.call('ZREM', history, id)
    local again = kind == 'delivery' and may_run_again(prefix, job, status)
    local cancelled, data = unpack(redis.call('HMGET', job, 'cancelled_by', 'data'))
    if is_over and not waits and not again and not cancelled and data then
      strip(job, id, left, newer)
      done = done + 1
    end
  end
end
return done
"""
)


def history_key(queue: str, kind: Kind) -> str:
    """Where those are noted that ended well and have all their details."""
    return f"relay:history:{queue}:{kind}"


def ended_well(queue: str, kind: Kind, id_: str) -> Command:
    """The command that notes the end of a job."""
    return ("ZADD", history_key(queue, kind), repr(time.time()), id_)


class History:
    """What is kept of one queue. Several workers may do the same at the same time."""

    def __init__(self, redis: Redis, queue: str, *, most: int) -> None:
        """Of so many deliveries, and as many deploys, all is kept, at ``most``."""
        self._redis = redis
        self._keys: dict[Kind, str] = {kind: history_key(queue, kind) for kind in get_args(Kind)}
        self._most = most
        self._strip = redis.register_script(_STRIP)

    async def look(self) -> int:
        """Strip what is over the bound now, and say how many were.

        Raises redis.exceptions.RedisError.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for key in self._keys.values():
                pipe.zcard(key)
            counts: list[int] = await pipe.execute()
        done = 0
        for kind, count in zip(self._keys, counts, strict=True):
            over = count - self._most
            # As often as is needed if all can be stripped. The rest is looked at next time.
            for start in range(0, over, STEP):
                done += await self._step(kind, min(STEP, over - start))
        return done

    async def _step(self, kind: Kind, count: int) -> int:
        oldest: Any = await self._redis.zrange(self._keys[kind], 0, count - 1)
        ids = [id_.decode() for id_ in oldest]
        async with self._redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hget(JOB_PREFIX + id_, "data")
                pipe.xrevrange(RESULTS_PREFIX + id_, count=1)
            answers = await pipe.execute()
        args: list[str | bytes | float] = [
            *(kind, JOB_PREFIX, RESULTS_PREFIX, attempts_key(""), time.time()),
            *(self._most, STRIPPED_FIELD, SUPERSEDED_BY_FIELD),
        ]
        for id_, data, ends in zip(ids, answers[::2], answers[1::2], strict=True):
            args += (id_, left_of(data or b""), _superseded_by(ends))
        done: int = await self._strip(keys=[self._keys[kind]], args=args)
        return done


def _superseded_by(ends: Sequence[Any]) -> str:
    return str(read_end(ends[0]).value.get("superseded_by", "")) if ends else ""
