"""Registers a worker with RQ, so that `rq info` shows it and its state. Nothing depends on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq import worker_registration
from rq.utils import now, utcformat
from rq.worker import BaseWorker, WorkerStatus

HEARTBEAT = 5.0
"""Seconds between two heartbeats."""

LEASE = 30
"""Seconds after its last heartbeat for which RQ knows a worker."""

LOOK = 0.2
"""Seconds between two looks at the state."""

_logger = logging.getLogger("workers")


class Heartbeat:
    """The heartbeat of one worker."""

    def __init__(
        self, worker: BaseWorker, redis: Redis, state: Callable[[], WorkerStatus], every: float
    ) -> None:
        self._worker: Any = worker
        self._redis = redis
        self._state = state
        self._every = every
        self._reported: WorkerStatus | None = None
        self._is_well = True

    async def run(self) -> None:
        """Register the worker and keep it known until cancelled, whatever Redis does."""
        loop = asyncio.get_running_loop()
        beat_at = 0.0
        while True:
            state = self._state()
            if loop.time() >= beat_at or state != self._reported:
                try:
                    await self._beat(state)
                    self._reported, self._is_well = state, True
                except (RedisError, OSError) as error:
                    if self._is_well:
                        _logger.warning("heartbeats wait for Redis (%s)", type(error).__name__)
                    self._is_well = False
                beat_at = loop.time() + self._every
            await asyncio.sleep(min(LOOK, self._every))

    async def announce_end(self) -> None:
        """Say that the worker takes no more jobs."""
        with suppress(RedisError, OSError):
            field: Any = self._redis.hset(
                self._worker.key, "shutdown_requested_date", utcformat(now())
            )
            await field

    async def die(self) -> None:
        """Say that the worker has ended. Raises redis.exceptions.RedisError."""
        worker = self._worker
        async with self._redis.pipeline(transaction=True) as buffer:
            pipe: Any = buffer
            worker_registration.unregister(worker, pipe)
            pipe.hset(worker.key, "death", utcformat(now()))
            pipe.expire(worker.key, 60)
            pipe.delete(worker.executions_key)
            await pipe.execute()

    async def _beat(self, state: WorkerStatus) -> None:
        worker = self._worker
        async with self._redis.pipeline(transaction=True) as buffer:
            pipe: Any = buffer
            worker.last_heartbeat = now()
            pipe.hset(worker.key, mapping={**worker.serialize(), "state": state.value})
            pipe.hdel(worker.key, "death")
            worker_registration.register(worker, pipe)
            pipe.expire(worker.key, LEASE)
            await pipe.execute()
