"""How much of a queue is still to be worked off, and what waits for a time or a person instead."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.intermediate_queue import IntermediateQueue
from rq.rate_limit import RateLimitRegistry
from rq.registry import ScheduledJobRegistry, StartedJobRegistry
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from config.settings import Settings
from relay.errors import CannotSpool
from relay.records import JOB_PREFIX, QUEUE_PREFIX, WAITING_FIELD

MOST_LATER = 20_000
"""Jobs that wait for their time whose reason is looked at, those that are due first."""

PAGE = 1_000
"""Of them so many in one round trip."""

SUFFIX = ".spool"
"""How the names of the files end in which the release before kept deliveries."""

RETRY = "retry"
"""Why those wait that ``deploy.waiting`` does not tell of: for another attempt."""

# In one step, as a job goes from one place to the next. What is due is moved to the queue by RQ's
# scheduler at any moment.
_READ = """
local queue, taken, started, scheduled, limits, workers = unpack(KEYS)
local limited, alive = 0, 0
for _, limit in ipairs(redis.call('SMEMBERS', limits)) do
  limited = limited + redis.call('ZCARD', ARGV[1] .. limit .. ':rate_limited')
end
for _, worker in ipairs(redis.call('SMEMBERS', workers)) do
  alive = alive + redis.call('EXISTS', worker)
end
local due = redis.call('ZCOUNT', scheduled, '-inf', ARGV[2])
return {redis.call('LLEN', queue) + redis.call('LLEN', taken) + due, limited,
        redis.call('ZCARD', started), redis.call('ZCARD', scheduled) - due, alive}
"""


class Left(NamedTuple):
    """What is left at one moment."""

    queued: int
    """Jobs for a worker, those that are due included."""
    limited: int
    """Deploys that wait for a slot at their target."""
    running: int
    later: int
    """Jobs that wait for their time: another attempt, or what ``deploy.waiting`` tells."""
    workers: int
    """Workers that live."""
    spooled: int
    """Bytes in the spool of this machine, which receivers forward as soon as Redis takes them."""

    @property
    def jobs(self) -> int:
        """Those that go on by themselves."""
        return self.queued + self.limited + self.running


class Later(NamedTuple):
    """What waits for its time."""

    reasons: Mapping[str, int]
    """How many for what, as ``deploy.waiting`` says it, or ``RETRY``."""
    next_at: float
    """When the first of them is looked at again, in seconds since the Unix epoch; 0 without any."""
    more: bool
    """There are others, beyond the first ``MOST_LATER``."""


async def read_left(redis: Redis, settings: Settings) -> Left:
    """What is left now. Raises CannotSpool where nobody knows, and redis.exceptions.RedisError."""
    queue = settings.queue
    # Before Redis is asked: what is forwarded in between is met twice rather than not at all.
    _check_readable(settings.spool_folder)
    bytes_spooled = spooled(settings.spool_folder)
    numbers: Any = await redis.eval(
        _READ,
        6,
        QUEUE_PREFIX + queue,
        IntermediateQueue.get_intermediate_queue_key(QUEUE_PREFIX + queue),
        StartedJobRegistry.key_template.format(queue),
        ScheduledJobRegistry.key_template.format(queue),
        RateLimitRegistry.rl_keys_key,
        WORKERS_BY_QUEUE_KEY % queue,
        f"{RQ_KEY_PREFIX}:rl:",
        repr(time.time()),
    )
    queued, limited, running, later, workers = numbers
    return Left(queued, limited, running, later, workers, bytes_spooled)


def spooled(folder: Path) -> int:
    """Bytes in the spool of this machine."""
    size = 0
    # Receivers remove their files at any moment.
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with suppress(FileNotFoundError):
                    size += entry.stat().st_size
    return size


def _check_readable(folder: Path) -> None:
    """A spool that may not be read would seem to be empty. Raises CannotSpool."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        pass
    except OSError as error:
        reason = f"the spool {folder} cannot be looked into ({error.strerror})"
        raise CannotSpool(reason) from None


async def read_later(redis: Redis, queue: str) -> Later:
    """What waits for its time now. Raises redis.exceptions.RedisError."""
    scheduled = ScheduledJobRegistry.key_template.format(queue)
    reasons: Counter[str] = Counter()
    next_at, now = 0.0, repr(time.time())
    for start in range(0, MOST_LATER, PAGE):
        found: Any = await redis.zrangebyscore(
            scheduled, f"({now}", "+inf", start, PAGE, withscores=True
        )
        if not start and found:
            next_at = found[0][1]
        async with redis.pipeline(transaction=False) as pipe:
            for id_, _ in found:
                pipe.hget(JOB_PREFIX + id_.decode(), WAITING_FIELD)
            told = await pipe.execute()
        reasons.update((text or b"").decode().partition(" ")[0] or RETRY for text in told)
        if len(found) < PAGE:
            return Later(reasons, next_at, more=False)
    return Later(reasons, next_at, more=True)
