"""What a worker does beside its jobs: heartbeats, RQ's scheduler, RQ's maintenance, the history.

RQ's own code does the work. Its scheduler and its maintenance block, so they run in threads, and
only after a heartbeat: nothing of our own is then taken for abandoned.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq import Queue, worker_registration
from rq.registry import BaseRegistry
from rq.scheduler import RQScheduler
from rq.timeouts import TimerDeathPenalty
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from workers.history import History
from workers.rescue import Rescue
from workers.running import Flight
from workers.writing import Part, Writer

# RQ's maintenance calls the failure callbacks of abandoned jobs under this, and a Unix signal
# cannot be had in a thread.
BaseRegistry.death_penalty_class = TimerDeathPenalty  # type: ignore[assignment]

MAX_TOGETHER = 50
"""Runs whose heartbeats go into one round trip; keeps the event loop free in between."""

_logger = logging.getLogger("workers")


@dataclass(frozen=True, slots=True)
class Tempo:
    """How often a worker looks after things, all in seconds.

    A job of a killed process is found ``lease`` + ``maintenance`` after its last heartbeat at the
    latest. By then the scheduler's lock is free again, which lasts ``scheduler_lock`` after its
    holder's death.
    """

    heartbeat: float = 5
    lease: int = 30
    maintenance: float = 10
    schedule: float = 1
    scheduler_lock: int = 15


class Upkeep:
    """The upkeep of one worker. Its tasks do not end by themselves, whatever Redis does."""

    def __init__(
        self,
        worker: BaseWorker,
        queue: Queue,
        *,
        writer: Writer,
        rescue: Rescue,
        history: History,
        redis: Redis,
        flights: Collection[Flight],
        tempo: Tempo,
    ) -> None:
        self._worker: Any = worker
        self._queue = queue
        self._writer = writer
        self._rescue = rescue
        self._history = history
        self._heard = time.monotonic()
        self._redis = redis
        self._flights = flights
        self._tempo = tempo
        # RQ keeps a scheduler's lock for its interval and 60 seconds more.
        self._scheduler: Any = RQScheduler(
            [queue],
            connection=worker.connection,
            interval=tempo.scheduler_lock - 60,
            logging_level=logging.WARNING,
            serializer=worker.serializer,
        )
        self._registered = False

    def start(self) -> list[asyncio.Task[None]]:
        """Tasks that look after everything until they are cancelled, each by itself."""
        tempo = self._tempo
        return [
            asyncio.create_task(self._every(tempo.heartbeat, self._heartbeat)),
            asyncio.create_task(self._every(tempo.schedule, self._threaded(self._schedule))),
            asyncio.create_task(self._every(tempo.maintenance, self._threaded(self._maintain))),
            asyncio.create_task(self._every(tempo.maintenance, self._look)),
            asyncio.create_task(self._every(tempo.maintenance, self._history.look)),
        ]

    def stop(self) -> None:
        """Leave RQ's scheduling to others. Blocks; raises redis.exceptions.RedisError."""
        if self._registered:
            self._scheduler.stop()

    async def _every(self, seconds: float, step: Callable[[], Any]) -> None:
        well = True
        while True:
            try:
                await step()
                well = True
            except (RedisError, OSError) as error:
                if well:
                    _logger.warning("upkeep waits for Redis (%s)", type(error).__name__)
                well = False
            except Exception:
                _logger.exception("upkeep failed")
            await asyncio.sleep(seconds)

    def _threaded(self, step: Callable[[], None]) -> Callable[[], Any]:
        async def run() -> None:
            if self._is_heard():
                await asyncio.to_thread(step)

        return run

    async def _heartbeat(self) -> None:
        """RQ's ``maintain_heartbeats`` for all runs, and for a worker that has none."""
        worker, lease = self._worker, self._tempo.lease
        begun = time.monotonic()
        async with self._redis.pipeline(transaction=True) as buffer:
            pipe: Any = buffer
            worker.heartbeat(lease, pipe)
            if (await pipe.execute())[0] == 1:
                # The worker was away for so long that Redis has forgotten it.
                pipe.hset(worker.key, mapping=worker.serialize())
                state = WorkerStatus.BUSY if self._flights else WorkerStatus.IDLE
                worker.set_state(state.value, pipe)
                worker_registration.register(worker, pipe)
                for flight in self._flights:
                    pipe.sadd(worker.executions_key, flight.execution.composite_key)
                pipe.expire(worker.key, lease)
                pipe.expire(worker.executions_key, lease)
                await pipe.execute()
        flights = list(self._flights)
        for start in range(0, len(flights), MAX_TOGETHER):
            await self._heartbeats(flights[start : start + MAX_TOGETHER])
        self._heard = begun

    async def _heartbeats(self, flights: Collection[Flight]) -> None:
        parts = [self._heartbeat_of(flight) for flight in flights]
        for refusal in (await self._writer.write(parts, {})).refusals:
            _logger.error("Redis refused a part of a heartbeat: %s", refusal)

    def _heartbeat_of(self, flight: Flight) -> Part:
        lease, registry = self._tempo.lease, self._queue.started_job_registry

        def beat(pipe: Any) -> None:
            flight.execution.heartbeat(registry, lease, pipe)
            flight.job.heartbeat(now(), lease, pipe)

        return self._writer.part(flight.job, flight.execution, beat)

    async def _look(self) -> None:
        if self._is_heard():
            await self._rescue.look()

    def _is_heard(self) -> bool:
        return time.monotonic() - self._heard < 2 * self._tempo.heartbeat

    def _schedule(self) -> None:
        scheduler = self._scheduler
        if not self._registered:
            scheduler.register_birth()
            self._registered = True
        if not scheduler.acquired_locks:
            scheduler.acquire_locks()
        scheduler.heartbeat()
        scheduler.enqueue_scheduled_jobs()

    def _maintain(self) -> None:
        self._worker.run_maintenance_tasks()
        # RQ forgets runs that are over when it is asked for those that are not.
        self._worker.get_current_executions()
