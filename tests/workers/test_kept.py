"""Attempts are kept for people with the outcome, and an outcome does not depend on it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
import redis
from aiohttp import web
from rq.job import Job, JobStatus

from config.settings import load_settings
from relay import audit
from relay.attempts_kept import MOST_ATTEMPTS, AttemptRecord, attempts_key, read_attempts
from relay.audit import MASK
from relay.events.event import Push
from relay.records import DEPLOY_JOB
from relay.replays import Wish
from relay.store import connect_async
from tests.harness import API_TOKEN, Relay, Target, until
from tests.workers.desk import YAML, Desk, answering
from workers import kept as kept_module
from workers.deploys import Deploy
from workers.replays import replay_deploys

HEADERS = "    headers: {Authorization: {env: TEST_API_TOKEN}}\n"


def kept(store: redis.Redis, deploy: str) -> list[AttemptRecord]:
    entries: Any = store.lrange(attempts_key(deploy), 0, -1)
    return read_attempts(entries)


async def ended(desk: Desk, deploy: str, status: JobStatus) -> None:
    await desk.crew.reaches(Job.fetch(deploy, desk.crew.store), status)


@pytest.mark.parametrize("keys", [HEADERS])
async def test_each_call_is_kept_with_its_answer(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"ref {request.headers['Authorization']}", status=503)

    audit.mask({API_TOKEN})
    target.answers = [echo]
    target.answer = answering(202)
    desk.crew.start()

    deploy = await desk.push("a")
    await ended(desk, deploy, JobStatus.FINISHED)

    first, second = kept(store, deploy)
    told = (first.attempt, first.outcome, first.reason, first.status, first.response_body)
    assert told == (1, "retry", "HTTP 503", 503, f"ref {MASK}")
    assert (second.attempt, second.outcome, second.status) == (2, "succeeded", 202)
    assert first.host == target.url.removeprefix("http://")
    assert first.request_headers["Authorization"] == MASK
    assert '"sha"' in first.request_body
    assert first.at < second.at
    assert API_TOKEN.encode() not in b"".join(store.lrange(attempts_key(deploy), 0, -1))  # type: ignore[arg-type]


async def test_a_secret_of_the_body_is_sent_and_not_kept(
    desk: Desk, target: Target, store: redis.Redis, relay: Relay
) -> None:
    body = "json: {key: {env: TEST_API_TOKEN}}"
    relay.write(YAML.replace("KEYS\n", "").replace('json: {sha: "{{ event.sha }}"}', body))
    target.answer = answering(202)
    desk.crew.start()

    deploy = await desk.push("a")
    await ended(desk, deploy, JobStatus.FINISHED)

    [(*_, sent)] = target.calls
    assert json.loads(sent) == {"key": API_TOKEN}
    [told] = kept(store, deploy)
    assert json.loads(told.request_body) == {"key": "<env TEST_API_TOKEN>"}
    assert API_TOKEN.encode() not in b"".join(store.lrange(attempts_key(deploy), 0, -1))  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", ["    timeout: 200ms\n    window: 1h\n"])
async def test_attempts_are_kept_as_long_as_their_job(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    desk.crew.start()
    well = await desk.push("a")
    await ended(desk, well, JobStatus.FINISHED)
    target.answer = answering(404)
    failed = await desk.push("b")
    await ended(desk, failed, JobStatus.FAILED)

    assert 3_590 <= store.ttl(attempts_key(well)) <= 3_600
    assert 31_535_990 <= store.ttl(attempts_key(failed)) <= 31_536_000


@pytest.mark.parametrize("keys", ["    timeout: 200ms\n"])
async def test_an_attempt_without_an_answer_is_kept(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    target.answer = never
    desk.crew.start()
    deploy = await desk.push("a")
    await ended(desk, deploy, JobStatus.FAILED)

    [told] = kept(store, deploy)
    assert (told.outcome, told.reason, told.status) == ("uncertain", "no answer in time", None)
    assert told.ms is not None
    assert told.ms >= 200


async def test_an_attempt_that_a_crash_cut_off_is_kept(desk: Desk, store: redis.Redis) -> None:
    event = Push("acme/api", "refs/heads/main", "1" * 40, "2" * 40)
    task = Deploy("github--1", "github", "api", "api", event)
    job = desk.crew.add(DEPLOY_JOB, msgspec.json.encode(task).decode())
    store.hset(job.key, "calling", 1)
    desk.crew.start()
    await desk.crew.reaches(job, JobStatus.FAILED)

    [told] = kept(store, job.id)
    assert (told.attempt, told.outcome, told.method) == (1, "uncertain", "")
    assert told.reason == "attempt 1 was cut off before its answer came"


async def test_only_the_latest_attempts_are_kept(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    target.answer = answering(404)
    desk.crew.start()
    deploy = await desk.push("a")
    await ended(desk, deploy, JobStatus.FAILED)
    store.rpush(attempts_key(deploy), *[b"old"] * 2 * MOST_ATTEMPTS)

    Job.fetch(deploy, store).requeue()
    await desk.told("deploy.failed", count=2)
    await ended(desk, deploy, JobStatus.FAILED)

    assert store.llen(attempts_key(deploy)) == MOST_ATTEMPTS
    [told] = kept(store, deploy)
    assert told.status == 404


async def test_a_replay_has_its_own(desk: Desk, target: Target, store: redis.Redis) -> None:
    target.answers = [answering(404)]
    desk.crew.start()
    deploy = await desk.push("a")
    await ended(desk, deploy, JobStatus.FAILED)
    connection = connect_async(desk.crew.url, timeout=5)
    [done] = await replay_deploys(connection, load_settings(), [Wish(deploy, "ops")])
    await connection.aclose()
    await ended(desk, done.new, JobStatus.FINISHED)

    assert [told.status for told in kept(store, deploy)] == [404]
    assert [told.status for told in kept(store, done.new)] == [200]


async def test_what_redis_does_not_take_of_it_changes_no_outcome(
    desk: Desk, target: Target, store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def spoil(request: web.Request) -> web.StreamResponse:
        store.set(attempts_key(request.headers["Idempotency-Key"]), "no list")
        return web.Response(status=202)

    target.answer = spoil
    desk.crew.start()
    deploy = await desk.push("a")
    await ended(desk, deploy, JobStatus.FINISHED)

    assert store.get(attempts_key(deploy)) == b"no list"
    await until(lambda: "Redis refused a part of an outcome: b'WRONGTYPE" in caplog.text)
    assert desk.lines("deploy.uncertain", "deploy.failed") == []
    assert store.hget(f"rq:job:{deploy}", "calling") is None
    assert len(target.calls) == 1


async def test_what_cannot_be_recorded_changes_no_outcome(
    desk: Desk,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any, **__: Any) -> AttemptRecord:
        raise RecursionError

    monkeypatch.setattr(kept_module, "recorded", broken)
    desk.crew.start()
    deploy = await desk.push("a")
    await ended(desk, deploy, JobStatus.FINISHED)

    assert kept(store, deploy) == []
    assert f"an attempt of {deploy} is not kept (RecursionError)" in caplog.text
    assert desk.lines("deploy.uncertain", "deploy.failed") == []
