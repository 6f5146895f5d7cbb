"""The worker process: as many calls as asked for in flight on one event loop.

This file has its life: birth, taking and running, a warm end. What it runs is in flights.py. To RQ
it is a worker of one queue, but RQ decides nothing: jobs name rows of the ledger, and while Redis
is away the worker looks for due rows there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from relay import audit
from relay.audit import log
from relay.errors import AuditUnavailable, LedgerUnavailable
from relay.ledger.due import due
from relay.ledger_marks import RedisMark
from relay.queue.rq_job import Wakeup
from relay.queue.sweep import Sweep
from relay.store import CONNECT_TIMEOUT, connect_async
from relay.tasks import end_tasks
from workers.flights import Flights
from workers.heartbeat import HEARTBEAT, Heartbeat
from workers.job_marks import JobMarks
from workers.queue_reader import PEEK, QueueReader, Suspended
from workers.rq_commands import Commands
from workers.runtime import Runtime, shared

MOST = 64
"""Jobs to take in one step; bounds how long the event loop is busy with it."""

LAST_WORDS = 3
"""Seconds after the grace in which the outcome of calls must be written that were cut off."""

GATHER = 0.002
"""Seconds that a worker without room waits for more of it, once there is some."""

SUSPENSION = 1
"""Seconds between two looks whether `rq resume` was called, as in RQ."""

LONGEST_PAUSE = 2.0
"""Seconds between two tries to take jobs while Redis or the audit refuses."""

WITHOUT_REDIS = 0.2
"""Seconds between two looks at the ledger while Redis is away."""

WITH_REDIS = 1.0
"""Seconds between two looks at the ledger while the queue is empty."""

OVERDUE = 2.0
"""Seconds for which a row has to be due, while Redis is there, before an idle worker takes it
without a job."""

_logger = logging.getLogger("workers")


class RelayWorker(BaseWorker):
    """RQ's worker with many calls in flight in one process."""

    def __init__(
        self,
        queue: Queue,
        name: str | None = None,
        *,
        connection: BlockingRedis,
        jobs_in_flight: int = 200,
        shutdown_grace: float = 30,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        """``shutdown_grace`` is the seconds that calls in flight get to end, ``heartbeat`` those
        between two heartbeats. ``connection`` is not used."""
        super().__init__(
            [queue],
            name,
            connection=connection,
            serializer=JSONSerializer,
            # RQ would ask Redis for this process's address, which may be away.
            prepare_for_work=False,
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        self.birth_date = self.last_heartbeat = now()
        self._heartbeat_every = heartbeat
        self._jobs_in_flight = jobs_in_flight
        self._grace = shutdown_grace
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_suspended = False
        self._is_away = False
        self._is_queue_empty = True

    async def run(self, rt: Runtime) -> None:
        """Work until SIGTERM, SIGINT or RQ's shutdown command, then end warmly."""
        settings, [queue] = rt.project.settings, self.queues
        url = settings.redis_address()
        async with _connections(url, settings.store_timeout) as (redis, waiting):
            marks = JobMarks(redis, self.name, queue.name)
            flights = Flights(self._jobs_in_flight, rt.wakeups, marks)
            flights.use(rt)
            rt.starter = flights
            sweep = Sweep(
                rt.ledger,
                rt.wakeups,
                url=url,
                queue=queue.name,
                timeout=settings.store_timeout,
                running=lambda: flights.running,
                is_behind=RedisMark(rt.ledger, settings).exchange,
            )
            heart = Heartbeat(self, redis, lambda: self._state_of(flights), self._heartbeat_every)
            commands = Commands(
                redis, self.pubsub_channel_name, flights=flights, shut_down=self.shut_down
            )
            with shared(rt):
                beside = [
                    asyncio.create_task(task) for task in (heart.run(), commands.run(), marks.run())
                ]
                sweep.start()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CONNECT_TIMEOUT if await _answers(redis) else 0):
                        await commands.listening.wait()
                reader = QueueReader(redis, waiting, queue.name)
                taking = [
                    asyncio.create_task(self._take(reader, flights)),
                    asyncio.create_task(self._look_for_due(rt, flights)),
                ]
                log.info(
                    "worker.started",
                    worker=self.name,
                    queue=queue.name,
                    config=rt.project.origin.version,
                )
                await self._stopping.wait()
                flights.is_open = False
                flights.close()
                beside.append(asyncio.create_task(heart.announce_end()))
                await end_tasks(taking)
                await self._land(flights)
                await marks.write()
                await sweep.stop()
                await end_tasks(beside)
            with suppress(RedisError, OSError):
                await heart.die()
        log.info("worker.stopped", worker=self.name)

    def shut_down(self) -> None:
        """Take no more jobs and let calls in flight end in time; called twice, end them now."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _state_of(self, flights: Flights) -> WorkerStatus:
        if flights.running:
            return WorkerStatus.BUSY
        return WorkerStatus.SUSPENDED if self._is_suspended else WorkerStatus.IDLE

    async def _take(self, reader: QueueReader, flights: Flights) -> None:
        """Keep as many runs in flight as there is room for."""
        pause = 0.0
        while True:
            try:
                room = min(flights.room, MOST)
                if not room:
                    flights.changed.clear()
                    await flights.changed.wait()
                    # Where many end, their places are filled in one round trip.
                    await asyncio.sleep(GATHER)
                    continue
                # Of what the audit does not take nobody could tell later why it was done.
                audit.flush()
                # What was taken is begun without a pause, so that a stop loses none of it.
                jobs = await asyncio.shield(self._start(reader, room, flights))
                self._is_away = self._is_suspended = False
                flights.is_open = True
                self._is_queue_empty = jobs < room
                pause = 0.0
                if jobs < room:
                    await reader.wait()
            except Suspended:
                self._is_suspended, flights.is_open = True, False
                await asyncio.sleep(SUSPENSION)
            except (RedisError, OSError, AuditUnavailable) as error:
                if not pause:
                    _logger.warning("taking jobs waits: %s", _words(error))
                self._is_away = not isinstance(error, AuditUnavailable)
                flights.is_open = self._is_away
                pause = min(2 * pause or 0.1, LONGEST_PAUSE)
                await asyncio.sleep(pause)
            except Exception:
                _logger.exception("taking jobs failed")
                await asyncio.sleep(LONGEST_PAUSE)

    async def _start(self, reader: QueueReader, room: int, flights: Flights) -> int:
        jobs = await reader.take(room)
        if self._stopping.is_set():
            # Their rows are due, so the sweep of another process has jobs made for them again.
            return 0
        for job in jobs:
            flights.take(job)
        return len(jobs)

    async def _look_for_due(self, rt: Runtime, flights: Flights) -> None:
        """Run due rows of the ledger that no job names: while Redis is away at once."""
        while True:
            is_alone = self._is_away or bool(rt.wakeups.away)
            await asyncio.sleep(WITHOUT_REDIS if is_alone else WITH_REDIS)
            if not flights.is_open or not (is_alone or self._is_queue_empty):
                continue
            late, most = (0.0 if is_alone else OVERDUE), min(flights.room, MOST)
            if not most:
                continue
            try:
                audit.flush()
                rows = await rt.ledger.glance(lambda reader: due(reader, most, late))  # noqa: B023
            except (AuditUnavailable, LedgerUnavailable) as error:
                _logger.warning("looking for what is due waits: %s", error)
                await asyncio.sleep(LONGEST_PAUSE)
                continue
            wakeups = [
                *(Wakeup("deploy", number, number) for number in rows.deploys),
                *(Wakeup("deliveries", number, number) for number in rows.deliveries),
                *(Wakeup("notice", number, number) for number in rows.notices),
            ]
            for wakeup in wakeups[:most]:
                if wakeup not in flights.running:
                    flights.start(wakeup)

    async def _land(self, flights: Flights) -> None:
        """Give calls in flight their grace; what still runs then is cut off."""
        landing = asyncio.ensure_future(flights.land())
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait(
            [landing, hurry], timeout=self._grace, return_when=asyncio.FIRST_COMPLETED
        )
        flights.cut_off("ended")
        await asyncio.wait([landing], timeout=LAST_WORDS)
        if flights.running:
            _logger.warning("%d runs are left to be found", len(flights.running))
        await end_tasks([landing, hurry])


@asynccontextmanager
async def _connections(url: str, patience: float) -> AsyncIterator[tuple[Redis, Redis]]:
    """Open a client, and one whose one command may take as long as an idle worker waits."""
    redis = connect_async(url, timeout=patience)
    waiting = connect_async(url, timeout=PEEK + patience)
    try:
        yield redis, waiting
    finally:
        for client in (redis, waiting):
            with suppress(RedisError, OSError):
                await client.aclose()


async def _answers(redis: Redis) -> bool:
    try:
        pong: Any = redis.ping()
        await pong
    except (RedisError, OSError):
        return False
    return True


def _words(error: Exception) -> str:
    if isinstance(error, AuditUnavailable):
        return str(error)
    return f"Redis does not answer ({type(error).__name__})"
