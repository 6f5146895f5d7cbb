"""Replays and cancellations as workers meet them, and two people who ask at the same moment."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from aiohttp import web
from redis.asyncio import Redis
from rq.job import Job, JobStatus

from config.settings import Settings, load_settings
from relay.cancelling import cancel
from relay.events.event import Delivery, Push
from relay.records import DELIVERY_JOB
from relay.replays import Wish, replay_deliveries
from relay.store import connect_async
from tests.harness import RELAY_YAML, Relay, Target, sha_of, until
from tests.workers import jobs
from tests.workers.crew import Crew
from workers.replays import replay_deploys


@pytest.fixture
async def server(store: redis.Redis, server_socket: Path) -> AsyncIterator[Redis]:
    connection = connect_async(f"unix://{server_socket}", timeout=5)
    yield connection
    await connection.aclose()


@pytest.fixture
def settings(crew: Crew) -> Settings:
    return load_settings()


def lines(audited: io.BytesIO, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in audited.getvalue().splitlines()]
    return [line for line in told if line["event"] == event]


def receive(crew: Crew, name: str = "1", *, repo: str = "acme/web") -> Job:
    event = Push(repo, "refs/heads/main", sha_of("before"), sha_of(name))
    delivery = Delivery(f"github--{name}", "github", 0, event)
    job = Job.create(
        DELIVERY_JOB,
        (msgspec.json.encode(delivery).decode(),),
        id=delivery.id,
        connection=crew.store,
        origin="deploy-relay",
        description=f"delivery: push {repo}@{event.sha[:12]}",
    )
    crew.store.hset(job.key, "receipt", f"receipt-{name}")
    crew.queue.enqueue_job(job)
    return job


async def deploys_of(crew: Crew, delivery: Job, status: JobStatus) -> list[Job]:
    await crew.reaches(delivery, JobStatus.FINISHED)
    ids: Any = crew.store.hget(delivery.key, "deploys")
    found = [Job.fetch(id_, crew.store) for id_ in ids.decode().split()]
    for job in found:
        await crew.reaches(job, status)
    return found


async def missing(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def test_replay_of_a_deploy_is_a_chain_of_its_own(
    crew: Crew, server: Redis, settings: Settings, target: Target, audited: io.BytesIO
) -> None:
    target.answers = [missing]
    crew.start()
    [old] = await deploys_of(crew, receive(crew), JobStatus.FAILED)

    [done] = await replay_deploys(server, settings, [Wish(old.id, "ops")])

    await crew.reaches(Job.fetch(done.new, crew.store), JobStatus.FINISHED)
    [told] = lines(audited, "deploy.replayed")
    assert (told["deploy"], told["replay_of"], told["by"]) == (done.new, old.id, "ops")
    assert [line["attempt"] for line in lines(audited, "deploy.attempted")] == [1, 1]
    keys = [headers["Idempotency-Key"] for *_, headers, _ in target.calls]
    assert keys == [old.id, done.new]
    # The first one stays as it was.
    assert old.get_status(refresh=True) == JobStatus.FAILED


async def test_replay_of_a_delivery_deploys_again_what_succeeded(
    crew: Crew, server: Redis, settings: Settings, target: Target, audited: io.BytesIO
) -> None:
    crew.start()
    delivery = receive(crew)
    [old] = await deploys_of(crew, delivery, JobStatus.FINISHED)

    wish = Wish(delivery.id, "ops", forced=True)
    [done] = await replay_deliveries(server, settings, [wish])

    [new] = await deploys_of(crew, Job.fetch(done.new, crew.store), JobStatus.FINISHED)
    assert new.id != old.id
    assert len(target.calls) == 2
    [told] = lines(audited, "delivery.replayed")
    assert (told["delivery"], told["replay_of"], told["by"]) == (done.new, delivery.id, "ops")
    [told] = lines(audited, "deploy.replayed")
    assert (told["deploy"], told["replay_of"], told["by"]) == (new.id, old.id, "ops")
    assert crew.store.hget(old.key, "replayed_by") == new.id.encode()
    # A second run of the replay, as after a crash, finds what the first one queued.
    crew.queue.enqueue_job(Job.fetch(done.new, crew.store))
    await until(lambda: len(lines(audited, "delivery.replayed")) == 2)
    await until(lambda: len(lines(audited, "deploy.queued")) == 3)
    assert {line["deploy"] for line in lines(audited, "deploy.queued")} == {old.id, new.id}
    assert len(target.calls) == 2


async def test_replay_of_a_delivery_does_not_move_the_branch(
    crew: Crew, server: Redis, settings: Settings
) -> None:
    crew.start()
    first = receive(crew, "1")
    await deploys_of(crew, first, JobStatus.FINISHED)
    await deploys_of(crew, receive(crew, "2"), JobStatus.FINISHED)

    [done] = await replay_deliveries(server, settings, [Wish(first.id, "ops", forced=True)])

    [new] = await deploys_of(crew, Job.fetch(done.new, crew.store), JobStatus.FINISHED)
    [latest] = crew.store.keys("relay:latest:*")
    known = crew.store.hmget(latest, "job", "after")
    assert known == [new.id.encode(), sha_of("2").encode()]


async def test_replay_of_a_delivery_does_not_double_what_runs(
    crew: Crew, server: Redis, settings: Settings, target: Target, audited: io.BytesIO
) -> None:
    opened = asyncio.Event()

    async def slowly(_: web.Request) -> web.StreamResponse:
        await opened.wait()
        return web.json_response({"success": True})

    target.answer = slowly
    crew.start()
    delivery = receive(crew)
    await until(lambda: target.calls)
    await crew.reaches(delivery, JobStatus.FINISHED)

    await replay_deliveries(server, settings, [Wish(delivery.id, "ops", forced=True)])

    await until(lambda: lines(audited, "deploy.duplicate"))
    opened.set()
    await until(lambda: lines(audited, "deploy.succeeded"))
    assert len(target.calls) == 1


async def test_people_who_ask_at_once_are_one_replay(
    crew: Crew, server: Redis, settings: Settings, target: Target
) -> None:
    target.answers = [missing]
    worker = crew.start()
    [old] = await deploys_of(crew, receive(crew), JobStatus.FAILED)
    worker.shut_down()
    await crew.ended(worker)

    told = await asyncio.gather(
        *(replay_deploys(server, settings, [Wish(old.id, "ops")]) for _ in range(10))
    )

    new = [done.new for [done] in told if done.new]
    assert len(new) == 1
    assert {(done.refusal, done.other) for [done] in told if not done.new} == {
        ("replaying", new[0])
    }


async def test_replay_supersedes_what_waits(
    crew: Crew, server: Redis, settings: Settings, relay: Relay, target: Target, audited: io.BytesIO
) -> None:
    relay.write(RELAY_YAML)
    target.answers = [missing]
    crew.start()
    [old] = await deploys_of(crew, receive(crew, "1", repo="acme/api"), JobStatus.FAILED)
    opened = asyncio.Event()

    async def slowly(_: web.Request) -> web.StreamResponse:
        await opened.wait()
        return web.Response(status=202)

    target.answer = slowly
    receive(crew, "2", repo="acme/api")
    await until(lambda: len(target.calls) == 2)
    receive(crew, "3", repo="acme/api")
    await until(lambda: len(lines(audited, "deploy.queued")) == 3)

    [done] = await replay_deploys(server, settings, [Wish(old.id, "ops")])
    opened.set()

    await crew.reaches(Job.fetch(done.new, crew.store), JobStatus.FINISHED)
    [superseded] = lines(audited, "deploy.superseded")
    assert (superseded["sha"], superseded["by"]) == (sha_of("3"), done.new)
    assert [json.loads(body)["sha"] for *_, body in target.calls] == [
        sha_of("1"),
        sha_of("2"),
        sha_of("1"),
    ]


async def test_cancelled_or_run_but_never_both(
    crew: Crew, server: Redis, settings: Settings
) -> None:
    """Five hundred jobs, cancelled one by one while a worker takes them."""
    added = [crew.add(jobs.note, description="deploy: t r@s") for _ in range(500)]
    crew.start(jobs_in_flight=5)
    await until(lambda: jobs.order)

    told = await cancel(server, settings, "deploy", [Wish(job.id, "ops") for job in added[::-1]])

    cancelled = {done.id for done in told if not done.refusal}
    await until(lambda: len(jobs.order) + len(cancelled) == len(added))
    assert cancelled
    assert cancelled.isdisjoint(jobs.order)
    assert crew.queue.job_ids == []


async def test_cancelled_job_that_rq_wrote_back_ends_without_a_call(
    crew: Crew, server: Redis, settings: Settings, target: Target, audited: io.BytesIO
) -> None:
    first, second = receive(crew, "1"), receive(crew, "2", repo="acme/api")
    await cancel(server, settings, "delivery", [Wish(first.id, "ops")])
    worker = crew.start()
    await until(lambda: len(target.calls) == 1)
    [deploy] = await deploys_of(crew, second, JobStatus.FINISHED)
    worker.shut_down()
    await crew.ended(worker)
    # As RQ's scheduler does with jobs that it has read before.
    crew.store.hset(deploy.key, "status", "scheduled")
    [done] = await cancel(server, settings, "deploy", [Wish(deploy.id, "ops")])
    assert not done.refusal
    for job in (first, deploy):
        crew.queue.enqueue_job(Job.fetch(job.id, crew.store))
    crew.start()

    await crew.reaches(first, JobStatus.FINISHED)
    await crew.reaches(deploy, JobStatus.FINISHED)

    for event, job in (("delivery.cancelled", first), ("deploy.cancelled", deploy)):
        [told] = lines(audited, event)
        assert (told[event.partition(".")[0]], told["by"]) == (job.id, "ops")
    assert len(target.calls) == 1
