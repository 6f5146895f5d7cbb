"""Turns: a target's calls within its rates, counted in Redis over all workers.

The sorted set ``relay:calls:<target>`` has the calls of the longest interval with their time, and
``relay:turns:<target>`` who waits, with the time that was promised, by the rates that
``relay:rates:<target>`` has. Seconds since the Unix epoch, of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.values import RateLimit
from relay.records import TURNS_PREFIX

FORGOTTEN = 86_400
"""Seconds after its turn when one that has not come is given up."""

# A call may be made while fewer than `most` others were made within `seconds` before it, for each
# rate: that alone decides. Who comes new also stands behind those that wait, unless their turn has
# passed by a minute: those may have ended otherwise. A promise is the time when the last place
# behind all of them is free, so that a thousand that wait do not all ask again for each free one.
# Whoever comes late for its turn, because the queue is long, need not stand behind anybody again.
# Where relay.yaml has got other rates, what was promised by the former ones counts no more.
_TAKE = """
local calls, turns, owner, call, now, longest = KEYS[1], KEYS[2], ARGV[1], ARGV[2],
                                                tonumber(ARGV[3]), tonumber(ARGV[4])
local known, rates = KEYS[3], table.concat(ARGV, ' ', 6)
if redis.call('GET', known) ~= rates then redis.call('DEL', turns) end
local turn = tonumber(redis.call('ZSCORE', turns, owner) or nil)
if turn and turn > now then return string.format('%.17g', turn) end

local function last_but(key, count)
  local found = redis.call('ZREVRANGE', key, count - 1, count - 1, 'WITHSCORES')
  return tonumber(found[2]) or 0
end

redis.call('ZREM', turns, owner)
redis.call('ZREMRANGEBYSCORE', turns, '-inf', now - ARGV[5])
redis.call('ZREMRANGEBYSCORE', calls, '-inf', now - longest)
local others = redis.call('ZCOUNT', turns, now - 60, '+inf')
local free, place = now, now
for rate = 6, #ARGV, 2 do
  local most, seconds = tonumber(ARGV[rate]), tonumber(ARGV[rate + 1])
  free = math.max(free, last_but(calls, most) + seconds)
  local before = others < most and last_but(calls, most - others) or last_but(turns, most)
  place = math.max(place, before + seconds)
end
place = math.max(place, free)
if free <= now and (turn or place <= now) then
  redis.call('ZADD', calls, now, call)
  redis.call('EXPIRE', calls, longest)
  return ''
end
redis.call('ZADD', turns, place, owner)
redis.call('EXPIRE', turns, math.ceil(place - now) + ARGV[5])
redis.call('SET', known, rates, 'EX', math.ceil(place - now) + ARGV[5])
return string.format('%.17g', place)
"""


async def take_turn(
    redis: Redis, target: str, rates: Sequence[RateLimit], *, owner: str, call: str, now: float
) -> float | None:
    """None where the call may be made now, and then it is counted; or else when to ask again.

    ``owner`` is whoever waits, ``call`` what is counted: two names that nobody else has. Raises
    redis.exceptions.RedisError.
    """
    longest = max(rate.seconds for rate in rates)
    numbers = [number for rate in rates for number in (rate.most, rate.seconds)]
    told: Any = await redis.eval(
        _TAKE,
        *(3, _calls_key(target), TURNS_PREFIX + target, f"relay:rates:{target}"),
        *(owner, call, repr(now), int(longest), FORGOTTEN),
        *numbers,
    )
    return float(told) if told else None


async def give_back(redis: Redis, target: str, call: str) -> None:
    """Count a call no longer that is not made after all. If Redis is away it stays counted."""
    with suppress(RedisError, OSError):
        await redis.zrem(_calls_key(target), call)


def rooms(redis: BlockingRedis, rates: Mapping[str, Sequence[RateLimit]]) -> dict[str, float]:
    """When each of these targets may be called by its rates: a time that has passed where it may be
    now, 0 where it has no rate. Blocking. Raises redis.exceptions.RedisError."""
    asked = [(name, rate) for name, limits in rates.items() for rate in limits]
    with redis.pipeline(transaction=False) as pipe:
        for name, (most, _) in asked:
            pipe.zrange(_calls_key(name), most - 1, most - 1, desc=True, withscores=True)
        answers = pipe.execute()
    found = dict.fromkeys(rates, 0.0)
    for (name, rate), last in zip(asked, answers, strict=True):
        for _, at in last:
            found[name] = max(found[name], at + rate.seconds)
    return found


def _calls_key(target: str) -> str:
    return f"relay:calls:{target}"
