"""Wake-ups: what was committed to the ledger gets RQ jobs, so that a worker looks at it at once.

Nothing depends on a wake-up. It is written in the background; while Redis takes nothing it is
forgotten, and the sweep (relay/queue/sweep.py) makes it again from the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from relay.queue.rq_job import (
    JOB_PREFIX,
    KEPT,
    QUEUE_PREFIX,
    QUEUES_KEY,
    Wakeup,
    job_hash,
    rq_time,
)
from relay.store import connect_async, name_of
from relay.tasks import end_tasks

MOST_TOGETHER = 256
"""Jobs of one round trip."""

MOST_WAITING = 10_000
"""Wake-ups that wait to be written; more are left to the sweep."""

LAST_WORDS = 1.0
"""Seconds that the last wake-ups get at the end of the process."""

_logger = logging.getLogger("relay")


class Wakeups:
    """Writes RQ jobs for one process. Its methods never raise and never wait for Redis."""

    def __init__(self, url: str, queue: str, *, timeout: float = 3) -> None:
        """``url`` is Redis's, ``queue`` the name of the RQ queue, ``timeout`` the seconds that one
        round trip may take."""
        self.away = ""
        """Why the last jobs were not written; empty after some that were."""
        self._redis: Redis = connect_async(url, timeout=timeout)
        self._queue = queue
        self._waiting: dict[Wakeup, None] = {}
        self._has_some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False

    def start(self) -> None:
        """Begin to write, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Write what waits, within LAST_WORDS seconds, and close the connection."""
        self._is_ending = True
        self._has_some.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=LAST_WORDS)
            await end_tasks([self._task])
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    def wake_deliveries(self, first: int, last: int) -> None:
        """Have a worker route the deliveries with ids from ``first`` to ``last``."""
        self._add(Wakeup("deliveries", first, last))

    def wake_deploys(self, deploys: Iterable[int]) -> None:
        """Have workers look at these deploys."""
        for number in deploys:
            self._add(Wakeup("deploy", number, number))

    def wake_notices(self, notices: Iterable[int]) -> None:
        """Have workers look at these notices."""
        for number in notices:
            self._add(Wakeup("notice", number, number))

    def _add(self, wakeup: Wakeup) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting[wakeup] = None
            self._has_some.set()

    async def _run(self) -> None:
        while self._waiting or not self._is_ending:
            await self._has_some.wait()
            # What the same turn of the event loop wakes goes into one round trip.
            await asyncio.sleep(0)
            try:
                await self._write()
            except Exception:
                _logger.exception("wake-ups were not written")
                self._waiting.clear()

    async def _write(self) -> None:
        """Write jobs for the wake-ups that came first; forget all where Redis takes nothing."""
        batch = list(self._waiting)[:MOST_TOGETHER]
        for wakeup in batch:
            del self._waiting[wakeup]
        if not self._waiting:
            self._has_some.clear()
        if not batch:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                self._fill(pipe, batch)
                # redis-py would put words of its own before the error.
                for answer in await pipe.execute(raise_on_error=False):
                    if isinstance(answer, Exception):
                        raise answer
        except (RedisError, OSError) as error:
            if not self.away:
                _logger.warning("wake-ups are left to the sweep (%s)", name_of(error))
            self.away = f"Redis takes no jobs ({name_of(error)})"
            self._waiting.clear()
            self._has_some.clear()
        else:
            self.away = ""

    def _fill(self, pipe: Any, batch: list[Wakeup]) -> None:
        now = rq_time()
        for wakeup in batch:
            key = f"{JOB_PREFIX}{wakeup.id}"
            pipe.hset(key, mapping=job_hash(wakeup, self._queue, now))
            pipe.expire(key, KEPT)
        pipe.rpush(self._queue_key, *(wakeup.id for wakeup in batch))
        pipe.sadd(QUEUES_KEY, self._queue_key)

    @property
    def _queue_key(self) -> str:
        return f"{QUEUE_PREFIX}{self._queue}"
