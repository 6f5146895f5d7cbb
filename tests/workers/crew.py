"""Workers in the process of the test, on a real server and a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from relay.ledger.ledger import Ledger
from relay.queue.wakeups import Wakeups
from relay.store import connect
from workers.runtime import open_runtime
from workers.worker import RelayWorker

HEARTBEAT = 0.1


@dataclass(slots=True)
class Crew:
    """Workers of one queue and ledger."""

    url: str
    folder: Path
    store: redis.Redis
    queue: Queue
    workers: list[tuple[RelayWorker, asyncio.Task[None]]] = field(default_factory=list)

    def start(self, **options: Any) -> RelayWorker:
        connection = connect(self.url)
        worker = RelayWorker(
            Queue(self.queue.name, connection=connection, serializer=JSONSerializer),
            connection=connection,
            heartbeat=HEARTBEAT,
            **options,
        )

        async def run() -> None:
            async with open_runtime() as runtime:
                watching = asyncio.create_task(runtime.reloading.run())
                try:
                    await worker.run(runtime)
                finally:
                    watching.cancel()

        self.workers.append((worker, asyncio.create_task(run())))
        return worker

    async def ended(self, worker: RelayWorker) -> None:
        [task] = [task for one, task in self.workers if one is worker]
        async with asyncio.timeout(20):
            await task


@asynccontextmanager
async def open_wakeups(url: str, queue: str) -> AsyncIterator[Wakeups]:
    wakeups = Wakeups(url, queue)
    wakeups.start()
    yield wakeups
    await wakeups.stop()


@asynccontextmanager
async def open_ledger(folder: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(folder)
    yield ledger
    await ledger.close()
