"""Whether something of the release before waits: its jobs in Redis, its spool files.

That release kept deliveries in pickled RQ jobs and in a spool. This one reads neither, so it does
not start until they are worked off. This check can go with the release after the next.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.defaults import RQ_KEY_PREFIX
from rq.intermediate_queue import IntermediateQueue
from rq.rate_limit import RateLimitRegistry
from rq.registry import ScheduledJobRegistry, StartedJobRegistry

from config.settings import Settings
from relay.errors import FormerRelease
from relay.queue.rq_job import JOB_PREFIX, QUEUE_PREFIX, read_job_id
from relay.store import connect_async

MOST_LOOKED_AT = 20_000
"""Jobs of each list that are looked at."""

_PAGE = 1_000
"""Of them in one round trip."""

_PICKLE = b"\x80"
"""What pickled data begins with; JSON cannot."""

_FUNCTION = re.compile(rb"workers\.(?:jobs\.(deliver|deploy)|notices\.(notify))")

_BEGINNING = 512
"""Bytes of a job's data in which the name of its function stands."""

_SPOOL_START = 8
"""Bytes of a spool file before its records: up to where they have been forwarded."""

_SPOOL_MARK = b"\xffrec"
"""What each record of the spool begins with. No record has this in it."""


class FormerJobs(NamedTuple):
    """What waits of the release before."""

    deliveries: int = 0
    """Those in the spool included."""
    deploys: int = 0
    notices: int = 0
    is_later: bool = False
    """Some wait for their time, or for a person."""

    def in_words(self) -> str:
        """Return how many there are of each kind."""
        counts = (
            (self.deliveries, "delivery", "deliveries"),
            (self.deploys, "deploy", "deploys"),
            (self.notices, "notice", "notices"),
        )
        told = [
            f"{number} {one if number == 1 else many}" for number, one, many in counts if number
        ]
        return " and ".join(filter(None, [", ".join(told[:-1]), *told[-1:]]))


async def refuse_former_release(settings: Settings) -> None:
    """Return if nothing of the release before waits, or if Redis cannot be asked now. Raises
    FormerRelease."""
    spooled = await asyncio.to_thread(spooled_deliveries, settings.data_dir / "spool")
    jobs = FormerJobs()
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout, repeats=False)
    try:
        jobs = await former_jobs(redis, settings.queue)
    except (RedisError, OSError):
        # It may come later. Jobs of that release are not taken then, either.
        pass
    finally:
        with suppress(RedisError, OSError):
            await redis.aclose()
    jobs = jobs._replace(deliveries=jobs.deliveries + spooled)
    if not jobs.in_words():
        return
    wait = "waits" if sum(jobs[:3]) == 1 else "wait"
    persons = ", and approve, resume or cancel what waits for a person" * jobs.is_later
    raise FormerRelease(
        f"{jobs.in_words()} of the release before {wait}: start it again and run "
        f"deploy-relay drain{' --all' * jobs.is_later}{persons}"
    )


async def former_jobs(redis: Redis, queue: str) -> FormerJobs:
    """Return the jobs of the release before that wait or run. Raises
    redis.exceptions.RedisError."""
    key = QUEUE_PREFIX + queue
    taken = IntermediateQueue.get_intermediate_queue_key(key)
    now = [
        *await _listed(redis, key),
        *await _listed(redis, taken),
        *await _limited(redis),
        # Its members name executions: the job's id and another one.
        *(
            member.rpartition(b":")[0]
            for member in await _ranked(redis, StartedJobRegistry.key_template.format(queue))
        ),
    ]
    later = await _ranked(redis, ScheduledJobRegistry.key_template.format(queue))
    waiting = await _kinds(redis, now)
    waiting_later = await _kinds(redis, later)
    kinds = [*waiting, *waiting_later]
    return FormerJobs(
        kinds.count("deliver"), kinds.count("deploy"), kinds.count("notify"), bool(waiting_later)
    )


def former_function(data: bytes) -> str:
    """Return which function of the release before a job calls, by the beginning of its data; empty
    for any other job. Nothing is unpickled."""
    with suppress(zlib.error):
        # RQ compresses what it writes itself.
        data = zlib.decompressobj().decompress(data, _BEGINNING)
    name = _FUNCTION.search(data[:_BEGINNING])
    if name is None or not data.startswith(_PICKLE):
        return ""
    return (name[1] or name[2]).decode()


def spooled_deliveries(folder: Path) -> int:
    """Return how many deliveries of the release before wait in its spool. A file of it that cannot
    be read counts as one."""
    number = 0
    with suppress(OSError):
        for file in folder.glob("*.spool"):
            try:
                number += _records(file)
            except OSError:
                number += 1
    return number


def _records(file: Path) -> int:
    data = file.read_bytes()
    if len(data) <= _SPOOL_START:
        return 0
    done = int.from_bytes(data[:_SPOOL_START], "big")
    start = done if _SPOOL_START <= done <= len(data) else _SPOOL_START
    return data.count(_SPOOL_MARK, start)


async def _listed(redis: Redis, key: str) -> Sequence[bytes]:
    ids: Any = redis.lrange(key, 0, MOST_LOOKED_AT - 1)
    listed: Sequence[bytes] = await ids
    return listed


async def _ranked(redis: Redis, key: str) -> Sequence[bytes]:
    members: Any = await redis.zrange(key, 0, MOST_LOOKED_AT - 1)
    ranked: Sequence[bytes] = members
    return ranked


async def _limited(redis: Redis) -> Sequence[bytes]:
    """Return the jobs that wait for a slot at their target, of all queues."""
    limits: Any = redis.smembers(RateLimitRegistry.rl_keys_key)
    members: list[bytes] = []
    for limit in await limits:
        key = f"{RQ_KEY_PREFIX}:rl:{limit.decode(errors='replace')}:rate_limited"
        members += await _ranked(redis, key)
    return members


async def _kinds(redis: Redis, ids: Sequence[bytes]) -> list[str]:
    names = {id_.decode(errors="replace") for id_ in ids}
    former = sorted(name for name in names if read_job_id(name) is None)
    kinds = []
    for start in range(0, len(former), _PAGE):
        async with redis.pipeline(transaction=False) as pipe:
            for name in former[start : start + _PAGE]:
                pipe.hget(f"{JOB_PREFIX}{name}", "data")
            kinds += [former_function(data) for data in await pipe.execute() if data]
    return [kind for kind in kinds if kind]
