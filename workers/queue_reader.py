"""Takes the ids of jobs from RQ's queue. The sweep makes lost jobs again."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from rq.suspension import WORKERS_SUSPENDED

from relay.queue.rq_job import QUEUE_PREFIX, Wakeup, read_job_id

PEEK = 5
"""Seconds that an idle worker waits at the queue before it looks around."""


class Suspended(Exception):
    """`rq suspend` holds all workers."""


class QueueReader:
    """Takes jobs from one queue."""

    def __init__(self, redis: Redis, waiting: Redis, queue: str) -> None:
        """``waiting`` has a connection to itself and lets a command take longer than PEEK."""
        self._redis = redis
        self._waiting = waiting
        self._key = f"{QUEUE_PREFIX}{queue}"
        self._was_suspended = False

    async def take(self, most: int) -> list[Wakeup]:
        """Return up to ``most`` jobs, which are in the queue no longer; none if it is empty.

        Raises Suspended and redis.exceptions.RedisError.
        """
        if self._was_suspended and await self._redis.exists(WORKERS_SUSPENDED):
            raise Suspended
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.exists(WORKERS_SUSPENDED)
            pipe.lpop(self._key, most)
            self._was_suspended, popped = await pipe.execute()
        ids: list[bytes] = popped or []
        if self._was_suspended:
            if ids:
                pushed: Any = self._redis.lpush(self._key, *reversed(ids))
                await pushed
            raise Suspended
        jobs = [read_job_id(one.decode(errors="replace")) for one in ids]
        return [job for job in jobs if job is not None]

    async def wait(self) -> None:
        """Return as soon as the queue holds a job, or after PEEK seconds.

        Moving the first job to where it is changes nothing, but Redis makes it wait for one.
        Raises redis.exceptions.RedisError.
        """
        await self._waiting.blmove(self._key, self._key, PEEK, "LEFT", "LEFT")
