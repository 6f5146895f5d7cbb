"""Redis did what it was told, and the answer got lost: nothing is lost with it, nothing is doubled.

A connection that breaks in that very moment cannot be had at will, so the client is made to lose
one answer.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis
from redis.asyncio.client import Pipeline
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Retry
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimit

from relay.events.event import Delivery, Push
from relay.records import DELIVERY_JOB, DEPLOY_JOB
from tests.harness import Target, until
from tests.workers import jobs
from tests.workers.crew import Crew
from workers.deploys import Deploy
from workers.runtime import Runtime
from workers.taking import _TAKE
from workers.upkeep import Tempo
from workers.writing import _WRITE

EVENT = Push("acme/web", "refs/heads/main", "1" * 40, "2" * 40)
DELIVERY = Delivery(id="github--1", source="github", received_at=0, event=EVENT)

QUIET = Tempo(heartbeat=600, schedule=0.1, maintenance=600)
"""Nobody but those who lost the answer can mend it in time."""

Lose = Callable[[str], list[str]]


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Lose:
    """Have the next call of a script lose its answer; returns a list that tells of it."""
    call = AsyncScript.__call__
    told: list[str] = []
    marked: list[str] = []

    async def lossy(self: AsyncScript, *args: Any, **options: Any) -> Any:
        answer = await call(self, *args, **options)
        text = self.script.decode() if isinstance(self.script, bytes) else self.script
        if text in marked and answer:
            marked.remove(text)
            told.append("lost")
            raise RedisConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(AsyncScript, "__call__", lossy)

    def next_of(script: str) -> list[str]:
        marked.append(script)
        return told

    return next_of


def lines(audited: io.BytesIO, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in audited.getvalue().splitlines()]
    return [line for line in told if line["event"] == event]


def add_delivery(crew: Crew, store: redis.Redis) -> Job:
    job = Job.create(
        DELIVERY_JOB,
        (msgspec.json.encode(DELIVERY).decode(),),
        id=DELIVERY.id,
        connection=store,
        origin="deploy-relay",
    )
    store.hset(job.key, "receipt", "one")
    crew.queue.enqueue_job(job)
    return job


def add_deploy(crew: Crew, **options: Any) -> Job:
    deploy = Deploy(DELIVERY.id, "github", "production", "production", EVENT)
    return crew.add(DEPLOY_JOB, msgspec.json.encode(deploy).decode(), **options)


async def test_what_was_taken_runs_at_once(crew: Crew, store: redis.Redis, lose: Lose) -> None:
    told = lose(_TAKE)
    added = [crew.add(jobs.note) for _ in range(5)]
    worker = crew.start(tempo=QUIET)

    await until(lambda: len(jobs.order) == 5)

    assert told == ["lost"]
    assert jobs.order == [job.id for job in added]
    await until(lambda: store.hget(worker.key, "state") == b"idle")
    assert store.exists(worker.executions_key) == 0


async def test_outcome_is_written_once(crew: Crew, store: redis.Redis, lose: Lose) -> None:
    limit = RateLimit("limit", 1)
    job = crew.add(jobs.note, rate_limit=limit)
    after = crew.add(jobs.hold, rate_limit=limit)
    told = lose(_WRITE)
    worker = crew.start(tempo=QUIET)

    await jobs.entered[after.id].wait()
    await until(lambda: [flight.job.id for flight in worker._flights] == [after.id])

    assert told == ["lost"]

    assert len(job.results()) == 1
    assert store.hget(worker.key, "successful_job_count") == b"1"
    assert store.zrange("rq:rl:limit:allowed", 0, -1) == [after.id.encode()]
    jobs.gates["gate"].set()
    await crew.reaches(after, JobStatus.FINISHED)


async def test_job_is_put_back_once(crew: Crew, lose: Lose) -> None:
    worker = crew.start(tempo=QUIET)
    job = crew.add(jobs.hold)
    await jobs.entered[job.id].wait()
    told = lose(_WRITE)

    worker.shut_down()
    worker.shut_down()
    await crew.ended(worker)

    assert told == ["lost"]
    assert crew.queue.job_ids == [job.id]


async def test_id_that_stands_in_the_queue_twice_runs_once(crew: Crew) -> None:
    job = crew.add(jobs.hold)
    crew.queue.push_job_id(job.id)
    after = crew.add(jobs.note)
    crew.start(jobs_in_flight=2)

    await crew.reaches(after, JobStatus.FINISHED)

    assert jobs.order == [job.id, after.id]
    jobs.gates["gate"].set()
    await crew.reaches(job, JobStatus.FINISHED)


async def test_deploys_are_told_of_as_queued(
    crew: Crew,
    store: redis.Redis,
    audited: io.BytesIO,
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execute = Pipeline.execute
    lost: list[str] = []

    async def lossy(self: Pipeline, *args: Any, **options: Any) -> Any:
        is_ours = any(b"deploys" in str(command).encode() for command in self.command_stack)
        answer = await execute(self, *args, **options)
        if is_ours and not lost:
            lost.append("lost")
            raise RedisConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(Pipeline, "execute", lossy)
    job = add_delivery(crew, store)
    store.hset(job.key, mapping={"retries_left": 3, "retry_intervals": "[1]"})
    crew.start(tempo=QUIET)

    await until(lambda: lines(audited, "deploy.succeeded"))
    await crew.reaches(job, JobStatus.FINISHED)

    assert lost == ["lost"]
    [again] = lines(audited, "delivery.retry_scheduled")
    assert again["delivery"] == "github--1"
    assert "ConnectionError" in again["reason"]
    assert len(lines(audited, "deploy.queued")) == 1
    assert lines(audited, "deploy.duplicate") == []
    assert len(target.calls) == 1


async def test_note_that_was_taken_in_silence_holds_nothing_back(
    crew: Crew, audited: io.BytesIO, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Runtime.send
    lost: list[str] = []

    async def late(future: Any) -> None:
        await future
        raise RedisTimeoutError("Timeout reading from socket")

    def lossy(self: Runtime, *command: Any) -> Any:
        future = send(self, *command)
        if command[0] == "HSET" and command[2] == "calling" and not lost:
            lost.append("lost")
            return late(future)
        return future

    monkeypatch.setattr(Runtime, "send", lossy)
    job = add_deploy(crew, retry=Retry(max=3, interval=1))
    crew.start(tempo=QUIET)

    await crew.reaches(job, JobStatus.FINISHED)

    assert lost == ["lost"]
    assert len(target.calls) == 1
    [again] = lines(audited, "deploy.retry_scheduled")
    assert again["reason"] == "internal error (TimeoutError), see the diagnostics"
    assert lines(audited, "deploy.failed") == []


async def test_outcome_waits_while_a_master_without_replicas_refuses_writes(
    crew: Crew, store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    crew.start()
    job = crew.add(jobs.hold)
    await until(lambda: jobs.order)
    store.config_set("min-replicas-to-write", 1)
    try:
        jobs.gates["gate"].set()
        await until(lambda: "outcomes not written yet (NOREPLICAS" in caplog.text)
    finally:
        store.config_set("min-replicas-to-write", 0)
    await crew.reaches(job, JobStatus.FINISHED)
