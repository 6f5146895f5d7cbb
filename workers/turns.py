"""Turns: a target's calls within its rates, counted in Redis over all workers.

The sorted set ``relay:turns:<target>`` has the calls of the longest interval with their time, and
who waits with the time of the turn that was promised. Seconds since the Unix epoch, of the caller's
clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from config.values import RateLimit

# A call may be made while fewer than `most` others were made within `seconds` before it, for each
# rate. Who comes new stands behind all the others, those too that wait for their turn; so each gets
# a time of its own, and a thousand that wait do not all ask again whenever one call is free. Whose
# turn has come is let in by what was really called, since turns come late or are not used.
_TAKE = """
local turns, owner, call, now, longest = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
redis.call('ZREMRANGEBYSCORE', turns, '-inf', now - longest)
local turn = tonumber(redis.call('ZSCORE', turns, owner) or nil)
if turn and turn > now then return string.format('%.6f', turn) end
redis.call('ZREM', turns, owner)
local at = now
for rate = 5, #ARGV, 2 do
  local most, seconds = tonumber(ARGV[rate]), tonumber(ARGV[rate + 1])
  local before = redis.call('ZREVRANGEBYSCORE', turns, turn and now or '+inf', '-inf',
                            'WITHSCORES', 'LIMIT', most - 1, 1)
  if before[2] then at = math.max(at, tonumber(before[2]) + seconds) end
end
redis.call('ZADD', turns, at, at > now and owner or call)
redis.call('EXPIRE', turns, math.ceil(at - now) + longest)
return at > now and string.format('%.6f', at) or ''
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
        _TAKE, 1, f"relay:turns:{target}", owner, call, repr(now), int(longest), *numbers
    )
    return float(told) if told else None
