"""RQ's list of workers: the one thing that commands and the console ask Redis for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from config.settings import Settings
from relay.ledger.overview import WorkerSeen
from relay.store import connect_async, unavailable

TIMEOUT = 1.0
"""Seconds that a page waits for Redis at most."""

_WORKER = "rq:worker:{}"

_diagnostics = logging.getLogger("relay.workers")


class Workers:
    """The workers of one queue, as RQ lists them."""

    def __init__(self, settings: Settings) -> None:
        """Open no connection yet."""
        timeout = min(TIMEOUT, settings.store_timeout)
        self._redis = connect_async(settings.redis_address(), timeout=timeout)
        self._queue = settings.queue

    async def read(self) -> Sequence[WorkerSeen] | None:
        """Return the workers that live, by name; None where Redis does not answer."""
        try:
            return await _read(self._redis, self._queue)
        except (RedisError, OSError) as error:
            _diagnostics.info("workers are not listed: %s", unavailable(error))
            return None

    async def close(self) -> None:
        """Close the connection."""
        await self._redis.aclose()


async def _read(redis: Redis, queue: str) -> list[WorkerSeen]:
    keys: Any = await redis.smembers(WORKERS_BY_QUEUE_KEY % queue)
    names = sorted(key.decode().rpartition(":")[2] for key in keys)
    # A worker that was killed stays a member until RQ's maintenance; its own key expires before.
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hget(_WORKER.format(name), "last_heartbeat")
            pipe.scard(WORKER_EXECUTIONS_KEY_TEMPLATE.format(name))
        answers = await pipe.execute()
    return [
        WorkerSeen(name=name, jobs=jobs, heard_at=heard_at.decode())
        for name, heard_at, jobs in zip(names, answers[::2], answers[1::2], strict=True)
        if heard_at
    ]
