"""Marks in Redis which worker makes a call, so that RQ shows it and can stop it.

`rq` stops a job by its hash, which names the worker. Most calls are over before a person could want
that, so only those that last get one. Nothing waits for what is written here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.job import JobStatus

from relay.queue.rq_job import FUNCTIONS, JOB_PREFIX, KEPT, Wakeup

LASTS = 0.25
"""Seconds that a call has to last to be marked."""

TICK = 0.1
"""Seconds between two looks at calls."""

MOST_TOGETHER = 256

_logger = logging.getLogger("workers")


class JobMarks:
    """Marks the jobs of one worker."""

    def __init__(self, redis: Redis, worker: str, queue: str) -> None:
        """``worker`` and ``queue`` are names as RQ knows them."""
        self._redis = redis
        self._worker = worker
        self._queue = queue
        self._calling: dict[Wakeup, float] = {}
        self._marked: set[Wakeup] = set()
        self._taken: set[Wakeup] = set()
        self._ended: set[Wakeup] = set()

    def job_taken(self, wakeup: Wakeup) -> None:
        """Note that a job was taken from the queue, so its hash is there."""
        self._taken.add(wakeup)

    def call_begins(self, wakeup: Wakeup) -> None:
        """Note that a call begins."""
        self._calling[wakeup] = time.monotonic()

    def run_ends(self, wakeup: Wakeup) -> None:
        """Have the hash deleted, if there is one."""
        self._calling.pop(wakeup, None)
        if wakeup in self._taken or wakeup in self._marked:
            self._ended.add(wakeup)
            self._taken.discard(wakeup)
            self._marked.discard(wakeup)

    async def run(self) -> None:
        """Write marks until cancelled, whatever Redis does."""
        while True:
            await asyncio.sleep(TICK)
            await self.write()

    async def write(self) -> None:
        """Write what has changed."""
        long_ago = time.monotonic() - LASTS
        lasting = [
            wakeup
            for wakeup, since in self._calling.items()
            if since < long_ago and wakeup not in self._marked
        ][:MOST_TOGETHER]
        ended = list(self._ended)[:MOST_TOGETHER]
        if not lasting and not ended:
            return
        self._marked.update(lasting)
        self._ended.difference_update(ended)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                self._fill(pipe, lasting, ended)
                await pipe.execute()
        except (RedisError, OSError):
            # They expire. A call that is not marked cannot be stopped, and that is all.
            return

    def _fill(self, pipe: Any, lasting: list[Wakeup], ended: list[Wakeup]) -> None:
        for wakeup in lasting:
            key = f"{JOB_PREFIX}{wakeup.id}"
            fields = {
                "data": json.dumps([FUNCTIONS[wakeup.kind], None, [wakeup.first], {}]),
                "origin": self._queue,
                "status": JobStatus.STARTED.value,
                "worker_name": self._worker,
            }
            pipe.hset(key, mapping=fields)
            pipe.expire(key, KEPT)
        if ended:
            pipe.unlink(*(f"{JOB_PREFIX}{wakeup.id}" for wakeup in ended))
