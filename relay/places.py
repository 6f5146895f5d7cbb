"""Where RQ has the jobs of a queue, and which of them may be looked for.

A hundred thousand of them may wait. So they are looked at in pages, by a script, and only at their
id, description and time of creation; only those that may be looked for are told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.rate_limit import RateLimitRegistry
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from relay.filtering import Filter
from relay.narrowing import in_description
from relay.packing import pack
from relay.records import JOB_PREFIX, QUEUE_PREFIX
from relay.statuses import STATUSES, Kind, Status

PAGE = 2_000
"""Jobs looked at in one script call, for which Redis serves nobody else: 2 to 4 ms."""

MOST_LOOKED_AT = 200_000
"""Jobs looked at in one place, at most."""

# Each field that is read costs a microsecond, so the one that leaves out most is read first: the
# time where it is known from when on, the description otherwise.
# Texts are compared by the server's locale, which agrees on digits, but perhaps not on ids.
_PAGE = r"""
local wanted, from = cmsgpack.unpack(ARGV[1]), ARGV[2]
local call, find, sub = redis.call, string.find, string.sub
local prefix, kind, names, to = wanted.prefix, wanted.kind, wanted.names, wanted.to

local function until_first(mark, text)
  return sub(text, 1, (find(text, mark, 1, true) or 0) - 1)
end

local function is_described(text)
  if not text or sub(text, 1, #kind) ~= kind then return false end
  if wanted.sha and not find(text, wanted.sha, 1, true) then return false end
  if not wanted.repos then return true end
  local folded = string.lower(text)
  for _, repo in ipairs(wanted.repos) do
    if find(folded, repo, 1, true) then return true end
  end
  return find(text, '[\194-\244]') -- letters that only Python folds
end

local ids = call(ARGV[3], KEYS[1], ARGV[4], ARGV[5])
local found = {#ids}
for _, id in ipairs(ids) do
  -- Of runs there is a job, a colon, an execution.
  if ARGV[6] == 'runs' then id = until_first(':', id) end
  if not names or names[until_first('--', id)] then
    local job = prefix .. id
    local at = from ~= '' and call('HGET', job, 'created_at')
    if from == '' or (at and at >= from) then
      local description = call('HGET', job, 'description')
      if is_described(description) then
        at = at or call('HGET', job, 'created_at')
        if at and (to == '' or at <= to) then
          local told = at .. ' ' .. id
          found[#found + 1] = wanted.described and told .. '\n' .. description or told
        end
      end
    end
  end
end
return found
"""

_Order = Literal["set", "runs", "head", "tail"]
"""A sorted set with its newest at the end, of jobs or of their runs, or a list with its newest at
one of its ends."""


class Place(NamedTuple):
    """A key of RQ's that has jobs."""

    key: str
    order: _Order


class Page(NamedTuple):
    """Jobs that may be looked for, each as ``place_of`` and behind a line's end its description,
    if that is asked for. ``is_cut``: behind it are others, which will not be looked at."""

    likely: list[str]
    is_cut: bool


async def places(redis: Redis, queue: str, kind: Kind, statuses: frozenset[Status]) -> list[Place]:
    """Where such jobs may be, in the order of a job's life: what moves on while we look is met
    again in a later place. Raises redis.exceptions.RedisError."""
    statuses = statuses or frozenset(STATUSES)
    is_deploy = kind == "deploy"
    found: list[Place] = []
    if "waiting" in statuses:
        if is_deploy:
            limits: Any = await redis.smembers(RateLimitRegistry.rl_keys_key)
            found += [
                Place(f"{RQ_KEY_PREFIX}:rl:{limit.decode()}:rate_limited", "set")
                for limit in sorted(limits)
            ]
        # Deliveries are put to the end of the queue, deploys to its front.
        found.append(Place(f"{QUEUE_PREFIX}{queue}", "head" if is_deploy else "tail"))
    if "retrying" in statuses or ("waiting" in statuses and is_deploy):
        found.append(Place(ScheduledJobRegistry.key_template.format(queue), "set"))
    if "running" in statuses:
        found.append(Place(StartedJobRegistry.key_template.format(queue), "runs"))
    # A matched delivery stands as its deploys stand, so that it may have any status.
    if not is_deploy or statuses & {"succeeded", "superseded", "cancelled"}:
        found.append(Place(FinishedJobRegistry.key_template.format(queue), "set"))
    if statuses & {"failed", "held", "stopped"}:
        found.append(Place(FailedJobRegistry.key_template.format(queue), "set"))
    if "cancelled" in statuses:
        found.append(Place(CanceledJobRegistry.key_template.format(queue), "set"))
    return found


class Pages:
    """Looks through places, page by page."""

    def __init__(self, redis: Redis, kind: Kind, wanted: Filter, *, most: int | None) -> None:
        """In one place so many jobs are looked at, at ``most``, or ``MOST_LOOKED_AT``."""
        self._redis = redis
        self._most = most or MOST_LOOKED_AT
        self._wanted = pack(
            {
                **in_description(kind, wanted),
                "prefix": JOB_PREFIX,
                "to": wanted.before.partition(" ")[0],
            }
        )
        self.since = ""
        """Only what was created then or later is told; a time as RQ writes it. It may be changed
        at any time."""

    async def of(self, place: Place) -> AsyncIterator[Page]:
        """The newest first. Raises redis.exceptions.RedisError."""
        command = "LRANGE" if place.order in ("head", "tail") else "ZREVRANGE"
        for start in range(0, self._most, PAGE):
            size = min(PAGE, self._most - start)
            first, last = start, start + size - 1
            if place.order == "tail":
                first, last = -last - 1, -first - 1
            number, *likely = await self._redis.eval(
                *(_PAGE, 1, place.key, self._wanted, self.since),
                *(command, first, last, place.order),
            )
            is_last = number < size
            yield Page([one.decode() for one in likely], not is_last and start + size >= self._most)
            if is_last:
                return
