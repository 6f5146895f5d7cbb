"""What Redis is asked in a search: scripts look at jobs and tell only those that may be looked for.

A script has Redis serve nobody else, so each call looks at a page of jobs, and at so many bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from relay.briefs import RESULTS_PREFIX
from relay.filtering import Filter
from relay.narrowing import in_description, in_job
from relay.packing import pack
from relay.places import Place
from relay.records import (
    CANCELLED_BY_FIELD,
    DEPLOYS_FIELD,
    JOB_PREFIX,
    STRIPPED_FIELD,
    SUPERSEDED_BY_FIELD,
    WAITING_FIELD,
)
from relay.statuses import Kind

PAGE = 1_000
"""Jobs looked at in one script call, for which Redis serves nobody else."""

MOST_BYTES = 1_048_576
"""Bytes of events looked at in one script call, about."""

MOST_LOOKED_AT = 200_000
"""Jobs looked at in one place, at most."""

_MAY_BE = r"""
local wanted, most = cmsgpack.unpack(ARGV[1]), tonumber(ARGV[2])
local call, find, sub = redis.call, string.find, string.sub
local prefix, bytes, untold = wanted.prefix, 0, 0

local function has_one(text, parts)
  for _, part in ipairs(parts) do
    if find(text, part, 1, true) then return true end
  end
  return false
end

local function may_say_so(job)
  local data = call('HGET', job, 'data')
  local left = not data and call('HGET', job, wanted.stripped)
  if not data and not left then return false end
  local is_compressed = data and string.byte(data) ~= 128 -- no pickle, then
  data = data or left
  bytes = bytes + #data
  if is_compressed then return true end
  for _, parts in ipairs(wanted.texts) do
    if not has_one(data, parts) then return false end
  end
  if not wanted.author then return true end
  if left then
    untold = 1
    return false
  end
  local start = find(data, '"author":{', 1, true)
  if not start then return false end
  local rest = sub(data, start)
  return find(string.lower(rest), wanted.author, 1, true)
         or find(rest, '[\194-\244]') -- letters that only Python folds
end

local function may_stand_so(id)
  local job = prefix .. id
  local status = call('HGET', job, 'status')
  if status == 'scheduled' and (call('HGET', job, wanted.waiting) or '') ~= '' then
    status = 'queued'
  end
  if status ~= 'finished' or wanted.statuses.finished then return wanted.statuses[status] end
  if wanted.statuses.canceled and call('HEXISTS', job, wanted.cancelled_by) == 1 then
    return true
  end
  if #wanted.superseded == 0 then return false end
  if call('HEXISTS', job, wanted.superseded_by) == 1 then return true end
  local ends = call('XREVRANGE', wanted.results .. id, '+', '-', 'COUNT', 1)
  return ends[1] and has_one(table.concat(ends[1][2], ' '), wanted.superseded)
end

local function has_deploy_that_may(id)
  if not wanted.by_deploys then return false end
  local deploys = call('HGET', prefix .. id, wanted.deploys) or ''
  for deploy in string.gmatch(deploys, '%S+') do
    if may_stand_so(deploy) then return true end
  end
  return false
end

local function may_be(id)
  return (not wanted.statuses or may_stand_so(id) or has_deploy_that_may(id))
         and (not wanted.reads or may_say_so(prefix .. id))
end
"""

# Each field that is read costs a microsecond, so the one that leaves out most is read first: the
# time where it is known from when on, the description otherwise.
# Texts are compared by the server's locale, which agrees on digits, but perhaps not on ids.
_PAGE = (
    _MAY_BE
    + r"""
local from, closely = ARGV[3], ARGV[4] == 'closely'
local kind, names, to = wanted.kind, wanted.names, wanted.to

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

local ids = call(ARGV[5], KEYS[1], ARGV[6], ARGV[7])
local found = {#ids, 0}
for _, id in ipairs(ids) do
  -- Of runs there is a job, a colon, an execution.
  if ARGV[8] == 'runs' then id = until_first(':', id) end
  if not names or names[until_first('--', id)] then
    local job = prefix .. id
    local at = from ~= '' and call('HGET', job, 'created_at')
    if from == '' or (at and at >= from) then
      local description = call('HGET', job, 'description')
      if is_described(description) and (not closely or bytes > most or may_be(id)) then
        at = at or call('HGET', job, 'created_at')
        if at and (to == '' or at <= to) then
          local told = at .. ' ' .. id
          found[#found + 1] = wanted.described and told .. '\n' .. description or told
        end
      end
    end
  end
end
found[2] = untold
return found
"""
)

_IDS = (
    _MAY_BE
    + r"""
local found = {0, 0}
for number = 3, #ARGV do
  if may_be(ARGV[number]) then found[#found + 1] = number - 3 end
  found[1], found[2] = number - 2, untold
  if bytes > most then break end
end
return found
"""
)


class Page(NamedTuple):
    """Jobs that may be looked for, each as ``place_of`` and behind a line's end its description,
    if that is asked for."""

    likely: list[str]
    is_whole: bool
    """Whether all were looked at: behind it are no others that will not be, and it has none of
    which not enough is kept to tell."""


class Chosen(NamedTuple):
    """Which of some jobs may be looked for."""

    looked_at: int
    """How many of them were looked at, the first ones."""
    is_whole: bool
    """Whether enough is kept of all of those to tell."""
    likely: list[int]


class Looking:
    """Looks for one thing. Its methods raise redis.exceptions.RedisError."""

    def __init__(self, redis: Redis, kind: Kind, wanted: Filter, *, most: int | None) -> None:
        """In one place so many jobs are looked at, at ``most``, or ``MOST_LOOKED_AT``."""
        self._redis = redis
        self._most = most or MOST_LOOKED_AT
        narrowing = in_job(kind, wanted)
        self._narrows = narrowing is not None
        self._wanted = pack(
            {
                **in_description(kind, wanted),
                **(narrowing or {}),
                "to": wanted.before.partition(" ")[0],
                "prefix": JOB_PREFIX,
                "results": RESULTS_PREFIX,
                "cancelled_by": CANCELLED_BY_FIELD,
                "deploys": DEPLOYS_FIELD,
                "waiting": WAITING_FIELD,
                "stripped": STRIPPED_FIELD,
                "superseded_by": SUPERSEDED_BY_FIELD,
            }
        )
        self.since = ""
        """Only what was created then or later is told; a time as RQ writes it. It may be changed
        at any time."""
        self.closely = self._narrows
        """Whether to look at once at all that Redis can tell, which takes time where events are
        large. It may be changed at any time."""

    async def through(self, place: Place) -> AsyncIterator[Page]:
        """The newest first."""
        command = "LRANGE" if place.order in ("head", "tail") else "ZREVRANGE"
        for start in range(0, self._most, PAGE):
            size = min(PAGE, self._most - start)
            first, last = start, start + size - 1
            if place.order == "tail":
                first, last = -last - 1, -first - 1
            number, untold, *likely = await self._redis.eval(
                *(_PAGE, 1, place.key, self._wanted, MOST_BYTES, self.since),
                "closely" if self.closely and self._narrows else "",
                *(command, first, last, place.order),
            )
            is_last = number < size
            is_cut = not is_last and start + size >= self._most
            yield Page([one.decode() for one in likely], not is_cut and not untold)
            if is_last:
                return

    async def at(self, ids: Sequence[str]) -> Chosen:
        """Those of them that may be looked for."""
        if not self._narrows:
            return Chosen(len(ids), True, list(range(len(ids))))
        number, untold, *likely = await self._redis.eval(_IDS, 0, self._wanted, MOST_BYTES, *ids)
        return Chosen(number, not untold, likely)
