"""The worker process: as many jobs as asked for in flight on one event loop.

This file has its life: birth, taking and running, a warm end, death. Beside it starting.py waits
for Redis before that, taking.py takes jobs, running.py runs one, bookkeeping.py writes how it
ended, upkeep.py keeps the worker known and commands.py obeys.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.exceptions import AbandonedJobError, DeserializationError
from rq.job import Job
from rq.rate_limit import RateLimitRegistry
from rq.registry import ReadyJobRegistry
from rq.timeouts import JobTimeoutException, TimerDeathPenalty
from rq.utils import now, utcformat
from rq.worker import BaseWorker
from rq.worker_registration import clean_worker_registry

from relay import audit
from relay.audit import log
from relay.errors import AuditUnavailable
from relay.store import CONNECT_TIMEOUT, connect_async
from workers import ends
from workers.announcing import announce_lost
from workers.bookkeeping import LONGEST_PAUSE, Books, Outcome
from workers.commands import Commands
from workers.errors import DeployFailed
from workers.history import History
from workers.rescue import Rescue
from workers.running import Flight
from workers.runtime import Runtime
from workers.taking import MOST, PEEK, Suspended, Taken, Taker
from workers.upkeep import Tempo, Upkeep
from workers.writing import Writer

LAST_WORDS = 3
"""Seconds after the grace in which what was cut off must have been put back."""

SUSPENSION = 1
"""Seconds between two looks whether `rq resume` was called, as in RQ."""

MAINTENANCE_LOCK = 60
"""Seconds that one worker's maintenance keeps others from theirs, should it die over it."""

_logger = logging.getLogger("workers")


class RelayWorker(BaseWorker):
    """RQ's worker with many jobs in flight in one process."""

    death_penalty_class = TimerDeathPenalty

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        *,
        jobs_in_flight: int = 200,
        shutdown_grace: float = 30,
        tempo: Tempo | None = None,
        **options: Any,
    ) -> None:
        """``queues`` is one queue. ``shutdown_grace`` is the seconds running jobs get to end."""
        self._tempo = tempo or Tempo()
        super().__init__(queues, name, worker_ttl=self._tempo.lease, **options)
        self._jobs_in_flight = jobs_in_flight
        self._grace = shutdown_grace
        self._flights: set[Flight] = set()
        self._taking: asyncio.Task[int] | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self, runtime: Runtime) -> None:
        """Run jobs until SIGTERM, SIGINT or RQ's shutdown command, then end warmly.

        Raises redis.exceptions.RedisError if Redis is away at the start, and never after.
        """
        [queue] = self.queues
        redis, tempo, flights = runtime.redis, self._tempo, self._flights
        # RQ asks the server once and remembers; later it would keep the event loop waiting.
        await asyncio.to_thread(queue.get_redis_server_version)
        await asyncio.to_thread(self.register_birth)
        writer = Writer(self, queue, redis)
        books = Books(
            self,
            queue,
            writer=writer,
            answered=runtime.answered,
            along=runtime.along,
            lost=functools.partial(announce_lost, runtime),
        )
        upkeep = Upkeep(
            self,
            queue,
            writer=writer,
            rescue=Rescue(self, queue, books, redis, silence=1.5 * tempo.heartbeat),
            history=History(redis, queue.name, most=runtime.project.settings.history),
            redis=redis,
            flights=flights,
            tempo=tempo,
        )
        commands = Commands(
            redis, self.pubsub_channel_name, flights=flights, shut_down=self.shut_down
        )
        async with _waiting_connection(runtime) as waiting:
            beside = [*upkeep.start(), asyncio.create_task(commands.run())]
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await commands.listening.wait()
            taker = Taker(self, queue, redis=redis, waiting=waiting, ttl=tempo.lease)
            taking = asyncio.create_task(self._take(taker, books, runtime))
            log.info(
                "worker.started",
                worker=self.name,
                queue=queue.name,
                config=runtime.project.origin.version,
            )
            await self._stopping.wait()
            beside.append(asyncio.create_task(self._announce_end(runtime)))
            await _cancel([taking])
            if self._taking is not None:
                await asyncio.wait([self._taking])
            await self._land()
            books.close()
            await _cancel(beside)
        try:
            await asyncio.to_thread(self._die, upkeep)
        except (RedisError, OSError) as error:
            _logger.warning("Redis was not told of the end (%s)", type(error).__name__)
        log.info("worker.stopped", worker=self.name)

    def shut_down(self) -> None:
        """Take no more jobs and let the running ones end in time; called twice, end them now."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002
        """Seconds after which a run without a heartbeat counts as abandoned."""
        return self._tempo.lease

    def clean_registries(self) -> None:
        """RQ's maintenance of the queue, with a lock that does not outlive its holder for long.

        RQ's own lock would keep abandoned jobs waiting for 15 minutes.
        """
        for queue in self.queues:
            key = f"relay:maintenance:{queue.name}"
            if self.connection.set(key, self.name, nx=True, ex=MAINTENANCE_LOCK):
                try:
                    # Abandoned runs are another matter: see workers/rescue.py.
                    queue.finished_job_registry.cleanup()
                    queue.failed_job_registry.cleanup()
                    queue.deferred_job_registry.cleanup()
                    ReadyJobRegistry(queue=queue).cleanup()
                    for limit in RateLimitRegistry.all(queue.connection):
                        limit.cleanup()
                    clean_worker_registry(queue)
                    queue.intermediate_queue.cleanup(self, queue)
                finally:
                    self.connection.delete(key)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Leave a traceback in the diagnostics only where something unforeseen happened."""
        if not isinstance(exc_info[1], DeployFailed | AbandonedJobError):
            super().handle_exception(job, *exc_info)

    @property
    def connection_timeout(self) -> int:
        """Seconds that a blocking command may take; none of this worker's waits for jobs."""
        return CONNECT_TIMEOUT

    async def _take(self, taker: Taker, books: Books, runtime: Runtime) -> None:
        """Keep as many jobs in flight as there is room for."""
        pause = 0.0
        while not self._stopping.is_set():
            try:
                room = min(self._jobs_in_flight - len(self._flights), MOST)
                if not room:
                    self._room.clear()
                    await self._room.wait()
                    continue
                # Of what the audit does not take nobody could tell later why it was done.
                audit.flush()
                if await self._start(taker, room, books, runtime) < room:
                    await taker.wait()
                pause = 0.0
            except Suspended:
                await asyncio.sleep(SUSPENSION)
            except (RedisError, OSError, AuditUnavailable) as error:
                if not pause:
                    _logger.warning("taking waits: %s", _told(error))
                pause = min(2 * pause or 0.1, LONGEST_PAUSE)
                await asyncio.sleep(pause)
            except Exception:
                _logger.exception("taking failed")
                await asyncio.sleep(LONGEST_PAUSE)

    async def _start(self, taker: Taker, room: int, books: Books, runtime: Runtime) -> int:
        """Take jobs and let them run; returns how many. What is taken runs, even if the worker is
        stopped meanwhile: it counts as started already."""

        async def take() -> int:
            try:
                taken = await taker.take(room)
            finally:
                self._taking = None
            self._fly(taken, books, runtime)
            return len(taken)

        self._taking = asyncio.create_task(take())
        return await asyncio.shield(self._taking)

    def _fly(self, taken: list[Taken], books: Books, runtime: Runtime) -> None:
        for job, execution, unreadable in taken:
            flight = Flight(job, execution, unreadable)
            self._flights.add(flight)
            self.executions[execution.id] = execution
            flight.task = asyncio.create_task(self._finish(flight, books, runtime))

    async def _finish(self, flight: Flight, books: Books, runtime: Runtime) -> None:
        try:
            outcome = await flight.run(runtime)
            _say(flight, outcome)
            await books.enter(outcome)
        except Exception:
            _logger.exception("job %s ended, and how is not kept", flight.job.id)
        finally:
            self.executions.pop(flight.execution.id, None)
            self._flights.discard(flight)
            self._room.set()

    async def _announce_end(self, runtime: Runtime) -> None:
        with suppress(RedisError, OSError):
            await runtime.send("HSET", self.key, "shutdown_requested_date", utcformat(now()))

    async def _land(self) -> None:
        """Give running jobs their grace; what still runs then goes back to the queue."""
        landing = asyncio.ensure_future(self._empty())
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait(
            [landing, hurry], timeout=self._grace, return_when=asyncio.FIRST_COMPLETED
        )
        for flight in self._flights:
            flight.cut_off("put back")
        await asyncio.wait([landing], timeout=LAST_WORDS)
        if self._flights:
            _logger.warning("%d jobs are left to be found as abandoned", len(self._flights))
        await _cancel([landing, hurry])

    async def _empty(self) -> None:
        while self._flights:
            self._room.clear()
            await self._room.wait()

    def _die(self, upkeep: Upkeep) -> None:
        upkeep.stop()
        self.register_death()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def _waiting_connection(runtime: Runtime) -> AsyncIterator[Redis]:
    """A client whose one command may take as long as an idle worker waits."""
    settings = runtime.project.settings
    redis = connect_async(settings.redis_address(), timeout=PEEK + settings.store_timeout)
    try:
        yield redis
    finally:
        await redis.aclose()


def _say(flight: Flight, outcome: Outcome) -> None:
    """Have the audit know of an end that the job itself did not live to see."""
    if outcome.how == "stopped":
        ends.stopped(flight.job)
    elif outcome.how == "put back":
        ends.put_back(flight.job)
    elif outcome.error is not None:
        error = outcome.error[1]
        if flight.unreadable or isinstance(error, JobTimeoutException | DeserializationError):
            ends.crashed(flight.job, error)


def _told(error: Exception) -> str:
    if isinstance(error, AuditUnavailable):
        return str(error)
    return f"Redis does not answer ({type(error).__name__})"


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """End tasks. It may take more than once: redis-py loses a cancellation while it connects. For
    the same reason none of them may be a group, which passes only the first one on."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
