"""A queue with what a test puts there, and the command line beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from click.testing import CliRunner, Result
from redis.asyncio import Redis
from rq.job import Job, JobStatus

from config.model import Target
from relay.cli import main
from relay.events.event import Delivery, Person, Push
from relay.queueing import DeliveryQueue, Record, encode, packed_record
from relay.records import HELD_ERROR
from relay.store import connect_async
from tests.harness import sha_of
from workers.deploys import Deploy, Wanted, queue_deploys

T = TypeVar("T")

QUEUE = "deploy-relay"
FAILED = "workers.errors.DeployFailed: HTTP 404"
HELD = f"{HELD_ERROR}: no answer in time"


@dataclass
class Yard:
    """A queue with what a test puts there, and the command line beside it."""

    store: redis.Redis
    url: str

    def with_redis(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        async def run() -> T:
            connection = connect_async(self.url, timeout=5)
            try:
                return await work(connection)
            finally:
                await connection.aclose()

        return asyncio.run(run())

    def delivery(self, name: str, *, repo: str = "acme/web", after: str = "") -> Delivery:
        commit = after or sha_of(name)
        event = Push(
            *(repo, "refs/heads/main", sha_of("before"), commit),
            message="\x1b[31mred",
            author=Person("Ada", login="ada"),
        )
        return Delivery(f"github--{name}", "github", 1.0, event)

    def receive(self, *names: str, **push: Any) -> list[Job]:
        async def work(connection: Redis) -> list[Job]:
            queue = DeliveryQueue(
                connection, QUEUE, window=600, failure_ttl=600, timeout=5, replicas=0
            )
            deliveries = [self.delivery(name, **push) for name in names]
            await queue.write(
                [packed_record(Record(one.id, one.id, one), encode(one)) for one in deliveries]
            )
            return [Job.fetch(one.id, self.store) for one in deliveries]

        return self.with_redis(work)

    def match(self, name: str, target: str = "production", **push: Any) -> Job:
        """Queue a deploy of a delivery; it is not necessarily one that was received."""

        async def work(connection: Redis) -> Job:
            one = self.delivery(name, **push)
            deploy = Deploy(one.id, "github", "r", target, one.event)
            settings = Target.model_validate({"preset": "http", "url": "https://secret.example"})
            [[queued]] = await queue_deploys(
                connection, [Wanted(one.id, [(deploy, settings)])], queue=QUEUE, failure_ttl=600
            )
            assert not queued.duplicate
            return Job.fetch(queued.id, self.store)

        return self.with_redis(work)

    def end(self, job: Job, status: JobStatus, said: Any = None) -> Job:
        """Have a job end as RQ has it end."""
        self.store.lrem(f"rq:queue:{QUEUE}", 0, job.id)
        self.store.zrem(f"rq:rl:{job.rate_limit_key}:allowed", job.id)
        times: dict[str, Any] = {"worker_name": "w", "execution_id": "e"}
        with self.store.pipeline() as pipe:
            job.set_status(status, pipeline=pipe)
            if status is JobStatus.FINISHED:
                job._result = said
                job._handle_success(600, pipe, **times)
            else:
                job._handle_failure(f"Traceback\n{said}", pipe, **times)
            pipe.execute()
        return job

    def run(self, *args: str, code: int = 0, typed: str = "") -> Result:
        result = CliRunner().invoke(main, args, input=typed)
        assert result.exit_code == code, result.output
        for secret in ("secret", "Traceback", "\x1b"):
            assert secret not in result.output
        return result

    def listed(self, *args: str) -> list[tuple[str, str]]:
        lines = self.run(*args, "--json").stdout.splitlines()
        return [(entry["id"], entry["status"]) for entry in map(json.loads, lines)]
