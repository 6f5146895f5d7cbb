"""Whether Redis would take a job now."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import RedisError

from relay.queue.rq_job import QUEUE_PREFIX, QUEUES_KEY
from relay.store import connect_async, name_of


class QueueProbe:
    """Asks the Redis of one queue."""

    def __init__(self, url: str, queue: str, *, timeout: float = 1) -> None:
        """``timeout`` is the seconds that one question may take."""
        self._redis: Redis = connect_async(url, timeout=timeout)
        self._queue_key = f"{QUEUE_PREFIX}{queue}"

    async def ask(self) -> str:
        """Return ``ok``, or why Redis takes no jobs. It writes what is there already, because a
        Redis that is full or a replica answers a PING all the same."""
        try:
            await self._redis.sadd(QUEUES_KEY, self._queue_key)
        except (RedisError, OSError) as error:
            return f"Redis takes no jobs ({name_of(error)})"
        return "ok"

    async def close(self) -> None:
        """Close the connection."""
        await self._redis.aclose()
