"""The line: deploys of a target with ``concurrency: 1``, one by one in the order of their arrival.

RQ's rate limit lets in one at a time, but the next one too while a deploy waits for its retry, and
all in any order after a common wait. The sorted set ``relay:line:<target>`` has the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis as redis_sync
from redis.asyncio import Redis
from rq import Retry
from rq.job import JobStatus

from relay.records import JOB_PREFIX
from relay.replays import ACTIVE_IN_LUA
from workers.gate import Ahead

LINE_KEPT = 2_592_000
"""Seconds after its last deploy for which the order of a target's deploys is known."""


class InLine(Retry):
    """A Retry of a job that stands in a line.

    Our worker has those that are due at the same moment run in the order of the line, and with
    ``place`` has the job give its place at the target to those before it and wait for it again. To
    a stock ``rq worker`` it is a Retry like any other.
    """

    def __init__(self, most: int, seconds: int, rank: int, place: float | None) -> None:
        """``rank`` is how many stand before it, ``place`` its score in the line."""
        super().__init__(max=most, interval=seconds)
        self.rank = rank
        self.place = place


def line_key(target: str) -> str:
    """Where the line of a target is kept."""
    return f"relay:line:{target}"


# Who has ended is taken out of the line here, not where it ends: so nothing that is cut off stays
# in it. A deploy that waits for a person holds up nobody. RQ lets in first who first comes out of a
# wait; where that is not the first one, all that wait to be let in are put in order.
_AHEAD = (
    ACTIVE_IN_LUA
    + """
local line, limited, scheduled = KEYS[1], KEYS[2], KEYS[3]
local job, prefix, spare = ARGV[1], ARGV[2], KEYS[1] .. ':spare'
local own = redis.call('ZSCORE', line, job)
if not own then return {0} end
local place = 0
while true do
  local first = redis.call('ZRANGE', line, place, place)[1]
  if first == job then return {place} end
  local status, waiting, approved = unpack(redis.call('HMGET', prefix .. first, 'status', 'waiting',
                                                      'approved_by'))
  if not active[status] then
    redis.call('ZREM', line, first)
  elseif not approved and string.sub(waiting or '', 1, 9) == 'approval ' then
    place = place + 1
  else
    redis.call('ZINTERSTORE', spare, 2, limited, line, 'WEIGHTS', 0, 1)
    redis.call('ZUNIONSTORE', limited, 2, limited, spare, 'AGGREGATE', 'MIN')
    redis.call('DEL', spare)
    local rank = redis.call('ZRANK', line, job)
    return {rank, first, redis.call('ZSCORE', scheduled, first) or '0', status, own}
  end
end
"""
)


async def look_ahead(
    redis: Redis, target: str, job: str, *, scheduled: str, limited: str
) -> tuple[int, Ahead | None]:
    """How many stand before ``job``, and the first of them that it has to wait for.

    ``scheduled`` and ``limited`` are the keys of RQ's registry and of the target's rate limit.
    Raises redis.exceptions.RedisError.
    """
    rank, *told = await redis.eval(_AHEAD, 3, line_key(target), limited, scheduled, job, JOB_PREFIX)
    if not told:
        return rank, None
    first, due, status, own = told
    ready = status == JobStatus.RATE_LIMITED.encode()
    return rank, Ahead(first.decode(), float(due), float(own) if ready else None)


def in_order(redis: redis_sync.Redis, target: str, jobs: Sequence[str]) -> list[str]:
    """Jobs of a target as they stand in its line; those that do not, first."""
    if not jobs:
        return []
    places: Any = redis.zmscore(line_key(target), list(jobs))
    return [job for _, job in sorted(zip((place or 0 for place in places), jobs, strict=True))]
