"""Turns the matches of one delivery into deploy jobs, each with its own identity, in one step.

The delivery's job remembers the ids of its deploys, so that the receiver can tell a delivery whose
deploys failed from one whose deploys succeeded or still run (relay/queueing.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.job import JobStatus
from rq.rate_limit import ACQUIRE_AND_ENQUEUE_SCRIPT, RateLimitRegistry
from rq.registry import ScheduledJobRegistry
from rq.utils import utcformat

from config.model import Target
from relay.events.event import Event
from relay.identity import (
    arrival,
    changed_at,
    deploy_identity,
    landing,
    subject,
    transition,
)
from relay.records import (
    DEPLOY_JOB,
    JOB_PREFIX,
    QUEUE_PREFIX,
    QUEUES_KEY,
    Lifetimes,
    job_fields,
)
from relay.store import execute
from workers.line import LINE_KEPT, line_key

BOOKKEEPING = 30
"""Seconds that a deploy job may take beyond its call."""

# A deploy is a duplicate if the same deploy waits, runs or has succeeded, and either nothing newer
# has been queued for its subject since, or it was brought about by the same transition and does not
# start where the newest one ended. So a branch that is moved back, and on again by the same push,
# is deployed each time; a second webhook for one push is not, even if it comes late.
# The receipt of the delivery tells a second webhook from a second run of the same delivery, whose
# first one was cut off before it could say what it had queued.
# Where only the newest counts, a push that ends where a later one began is late, unless it starts
# where the newest ended (the branch was moved back) or its end was reached before (moved back too,
# with a webhook missing in between). Of pull requests the time of the change tells. What is late
# does not become the newest, so its job ends as superseded; what has become old is woken to end.
# A burst is what comes for one subject while nothing of it has been called.
# A replay is wished: only what waits, runs or was queued by its own first run counts. It does not
# move the branch, so it becomes the newest deploy but leaves where the branch is. It is never late,
# and waits for no newer one: without `at` there is nothing to wait for.
_QUEUE_DEPLOYS = """
local queue, queues, limits, scheduled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, rate_prefix, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_moves, line_kept = tonumber(ARGV[4]), tonumber(ARGV[5])
local counts = {queued = true, started = true, scheduled = true, deferred = true, created = true,
                rate_limited = true, ready_to_enqueue = true, finished = true}
local waits = {rate_limited = true, queued = true, started = true, scheduled = true}

redis.call('SADD', queues, queue)
local answers, key, arg = {}, 5, 6
while key <= #KEYS do
  local delivery, deploys, ids = KEYS[key], tonumber(ARGV[arg]), {}
  local receipt, replay, by, cancelled = unpack(redis.call('HMGET', delivery, 'receipt',
                                                           'replay_of', 'requested_by',
                                                           'cancelled_by'))
  local told = {}
  receipt = receipt or ''
  key, arg = key + 1, arg + 1
  for _ = 1, deploys do
    local identity, latest, line = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    local name, transition, before, after, window = unpack(ARGV, arg, arg + 4)
    local limit, concurrency, supersede, commit, changed = unpack(ARGV, arg + 5, arg + 9)
    local debounce, count = ARGV[arg + 10], tonumber(ARGV[arg + 11])
    local first = redis.call('HGET', identity, 'job')
    local status = first and redis.call('HGET', prefix .. first, 'status')
    local newest, reached, last, burst = unpack(redis.call('HMGET', latest, 'job', 'after',
                                                           'changed', 'burst'))
    local again = transition ~= '' and reached ~= before
                  and redis.call('HGET', identity, 'transition') == transition
    local counted = newest == first or again
    if replay then
      counted = status ~= 'finished' or redis.call('HGET', prefix .. first, 'receipt') == receipt
    end
    local verdict, id
    if cancelled then
      verdict, id = 'cancelled', ''
    elseif status and counts[status] and counted then
      verdict, id = 'duplicate', first
      local its = redis.call('HGET', prefix .. id, 'receipt')
      if its == receipt and receipt ~= '' and not told[id] then verdict = 'queued' end
    else
      local number = 1
      id = name
      while redis.call('EXISTS', prefix .. id) == 1 do
        number = number + 1
        id = name .. '-' .. number
      end
      redis.call('HSET', identity, 'job', id, 'transition', transition)
      redis.call('EXPIRE', identity, window)
      local late = false
      if supersede == '1' then
        local moves = latest .. ':moves'
        if replay then
          redis.call('HDEL', latest, 'at', 'burst')
        elseif newest and changed ~= '' and last then
          late = tonumber(changed) < tonumber(last)
        elseif newest and commit ~= '' and not first and reached ~= before then
          late = redis.call('ZSCORE', moves, commit)
        end
        if commit ~= '' and not replay then
          redis.call('ZADD', moves, now, before)
          redis.call('ZREMRANGEBYRANK', moves, 0, -1 - most_moves)
          redis.call('EXPIRE', moves, window)
        end
        if debounce == '1' and not late and not replay then
          local old = newest and redis.call('HMGET', prefix .. newest, 'status', 'calling',
                                            'number_of_retries')
          local same = old and waits[old[1]] and not old[2] and (old[3] or '0') == '0'
          if not (burst and same) then redis.call('HSET', latest, 'burst', now) end
          redis.call('HSET', latest, 'at', now)
        end
        if not late then
          if not (replay and reached) then
            redis.call(changed ~= '' and 'HSET' or 'HDEL', latest, 'changed', changed)
          end
          if newest then redis.call('ZADD', scheduled, 'XX', math.floor(now), newest) end
        end
      end
      if not late then
        redis.call('HSET', latest, 'job', id, 'after', replay and reached or after)
      end
      redis.call('EXPIRE', latest, window)
      redis.call('HSET', prefix .. id, 'receipt', receipt, unpack(ARGV, arg + 12, arg + 11 + count))
      if replay and status then
        redis.call('HSET', prefix .. id, 'replay_of', first, 'requested_by', by or '')
        redis.call('HSET', prefix .. first, 'replayed_by', id)
      end
      redis.call('SADD', limits, limit)
      redis.call('HSET', rate_prefix .. limit, 'concurrency', concurrency)
      redis.call('ZADD', rate_prefix .. limit .. ':rate_limited', now + key / 1e6, id)
      if concurrency == '1' then
        redis.call('ZADD', line, now + key / 1e6, id)
        redis.call('EXPIRE', line, line_kept)
      end
      verdict = 'queued'
    end
    answers[#answers + 1] = verdict
    answers[#answers + 1] = id
    if not cancelled then ids[#ids + 1] = id end
    told[id] = true
    key, arg = key + 3, arg + 12 + count
  end
  if redis.call('EXISTS', delivery) == 1 then
    redis.call('HSET', delivery, 'deploys', table.concat(ids, ' '))
  end
end
return answers
"""

MAX_MOVES = 32
"""Moves of one branch that are remembered, to know an older one that arrives late."""

_IDENTITY_PREFIX = "relay:deploy:"

RATE_PREFIX = f"{RQ_KEY_PREFIX}:rl:"


class Deploy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One deploy call to be made, as it waits in Redis. It holds no URL and no secret: those are
    read from relay.yaml when the call is made."""

    delivery: str
    source: str
    route: str
    target: str
    event: Event
    received_at: float = 0
    """When the delivery was received, in seconds since the Unix epoch; 0 if that is not known."""
    trace: str = ""
    """The traceparent of the match that queued it; empty where nothing is traced."""


class Queued(NamedTuple):
    """What became of a deploy: ``id`` is its job, or the one that it is a duplicate of."""

    deploy: Deploy
    id: str
    duplicate: bool
    cancelled: bool = False
    """The delivery was cancelled, so nothing was queued."""


class Wanted(NamedTuple):
    """What one delivery shall lead to."""

    delivery: str
    deploys: Sequence[tuple[Deploy, Target]]


async def queue_deploys(
    redis: Redis,
    batch: Sequence[Wanted],
    *,
    queue: str,
    failure_ttl: float,
    replicas: int = 0,
    patience: float = 0,
) -> list[list[Queued]]:
    """Queue each deploy unless it is a duplicate, and note their ids at their delivery's job.

    All of it happens in one transaction, which so many ``replicas`` have ``patience`` seconds to
    confirm. Raises redis.exceptions.RedisError.
    """
    keys = [f"{QUEUE_PREFIX}{queue}", QUEUES_KEY, RateLimitRegistry.rl_keys_key]
    keys.append(ScheduledJobRegistry.key_template.format(queue))
    args: list[str | bytes | int | float] = [
        *(JOB_PREFIX, RATE_PREFIX, time.time()),
        *(MAX_MOVES, LINE_KEPT),
    ]
    bounds: dict[str, int] = {}
    for delivery, deploys in batch:
        keys.append(f"{JOB_PREFIX}{delivery}")
        args.append(len(deploys))
        for deploy, target in deploys:
            identity = deploy_identity(deploy.target, deploy.event)
            fields = deploy_fields(deploy, target, queue, int(failure_ttl))
            bounds[deploy.target] = target.concurrency
            keys += (
                f"{_IDENTITY_PREFIX}{identity}",
                latest_key(deploy),
                line_key(deploy.target),
            )
            args += (
                f"{deploy.target}--{identity}",
                transition(deploy.event),
                *arrival(deploy.event),
                max(1, 259_200),
                limit_key(deploy.target),
                target.concurrency,
                int(target.newest_only),
                landing(deploy.event),
                changed_at(deploy.event) or "",
                int(target.debounce is not None),
                len(fields),
                *fields,
            )

    def fill(pipe: Any) -> None:
        pipe.eval(_QUEUE_DEPLOYS, len(keys), *keys, *args)
        for name, concurrency in bounds.items():
            fill_slots(pipe, limit_key(name), concurrency)

    answers: list[bytes] = (await execute(redis, fill, replicas=replicas, patience=patience))[0]
    told = iter(zip(answers[::2], answers[1::2], strict=True))
    return [
        [
            Queued(deploy, job.decode(), verdict == b"duplicate", verdict == b"cancelled")
            for (deploy, _), (verdict, job) in zip(deploys, told, strict=False)
        ]
        for _, deploys in batch
    ]


def identity_key(deploy: Deploy) -> str:
    """Where the job of the same deploy is kept: a hash."""
    return f"{_IDENTITY_PREFIX}{deploy_identity(deploy.target, deploy.event)}"


def latest_key(deploy: Deploy) -> str:
    """Where the deploy queued last for the same subject is kept: a hash with its ``job``."""
    return f"relay:latest:{subject(deploy.target, deploy.event)}"


def deploy_fields(
    deploy: Deploy, target: Target, queue: str, failure_ttl: int
) -> list[str | bytes | int]:
    """Fields and values, in turn, of the hash of a deploy's job that waits for its target."""
    event = deploy.event
    fields = job_fields(
        DEPLOY_JOB,
        msgspec.json.encode(deploy).decode(),
        queue=queue,
        description=f"deploy: {deploy.target} {event.repo}@{event.sha[:12]}",
        lifetimes=Lifetimes(
            timeout=int(target.timeout) + BOOKKEEPING,
            result=max(1, 259_200),
            failure=failure_ttl,
        ),
        status=JobStatus.RATE_LIMITED,
    )
    # At the front, so that what is already matched does not wait for what is not.
    fields += (
        "rate_limit_key",
        limit_key(deploy.target),
        "rate_limit_concurrency",
        target.concurrency,
        "enqueue_at_front",
        1,
    )
    return fields


def limit_key(target: str) -> str:
    """The key of a target's RateLimit, by which rq keeps its calls apart over all workers."""
    return f"target:{target}"


def limited_key(target: str) -> str:
    """Where those are kept that wait to be let in: a sorted set of rq's."""
    return f"{RATE_PREFIX}{limit_key(target)}:rate_limited"


def fill_slots(pipe: Any, limit: str, concurrency: int) -> None:
    """Have rq itself move waiting jobs into free slots, as its own enqueue does."""
    pipe.eval(
        ACQUIRE_AND_ENQUEUE_SCRIPT,
        2,
        f"{RATE_PREFIX}{limit}:allowed",
        f"{RATE_PREFIX}{limit}:rate_limited",
        concurrency,
        int(time.time()),
        utcformat(datetime.now(UTC)),
        QUEUE_PREFIX,
        JOB_PREFIX,
    )
