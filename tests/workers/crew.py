"""Workers in the process of the test, on a real server, with a quicker tempo."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import redis
from rq import Queue
from rq.job import Job, JobStatus

from relay.store import connect
from tests.harness import until
from workers.runtime import open_runtime
from workers.upkeep import Tempo
from workers.worker import RelayWorker

QUICK = Tempo(heartbeat=0.2, lease=2, maintenance=0.3, schedule=0.1, scheduler_lock=2)


@dataclass(slots=True)
class Crew:
    """Workers of one queue, and the queue."""

    url: str
    store: redis.Redis
    queue: Queue
    workers: list[tuple[RelayWorker, asyncio.Task[None]]] = field(default_factory=list)

    def start(self, *, tempo: Tempo = QUICK, **options: Any) -> RelayWorker:
        connection = connect(self.url)
        worker = RelayWorker(
            [Queue(self.queue.name, connection=connection)],
            connection=connection,
            tempo=tempo,
            **options,
        )

        async def run() -> None:
            async with open_runtime() as runtime:
                await worker.run(runtime)

        self.workers.append((worker, asyncio.create_task(run())))
        return worker

    def add(self, function: Any, *args: Any, **options: Any) -> Job:
        return self.queue.enqueue(function, *args, **options)

    async def reaches(self, job: Job, status: JobStatus) -> None:
        await until(lambda: job.get_status() == status)

    async def ended(self, worker: RelayWorker) -> None:
        [task] = [task for one, task in self.workers if one is worker]
        async with asyncio.timeout(20):
            await task
