"""Calls of which nobody knows whether the platform took them: held, or made again, as told."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import msgspec
import pytest
import redis
from aiohttp import web
from rq.job import Job, JobStatus

from relay.events.event import Push
from relay.records import DEPLOY_JOB, HELD_ERROR
from tests.harness import RELAY_YAML, Relay, Target
from tests.workers.crew import Crew
from workers.deploys import Deploy
from workers.errors import DeployHeld

EVENT = Push("acme/web", "refs/heads/main", "1" * 40, "2" * 40)

IMPATIENT = RELAY_YAML.replace("base: 10ms}", "base: 0}\n    timeout: 200ms", 1)
AGAIN = IMPATIENT.replace("timeout: 200ms", "timeout: 200ms\n    on_uncertain: retry", 1)


def lines(audited: io.BytesIO, event: str, *names: str) -> list[tuple[Any, ...]]:
    told = [json.loads(line) for line in audited.getvalue().splitlines()]
    return [tuple(line.get(name) for name in names) for line in told if line["event"] == event]


def add_deploy(crew: Crew) -> Job:
    deploy = Deploy("github--1", "github", "production", "production", EVENT)
    return crew.add(DEPLOY_JOB, msgspec.json.encode(deploy).decode())


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


def failure(job: Job) -> str:
    result = job.latest_result()
    assert result is not None
    return (result.exc_string or "").splitlines()[-1]


async def test_no_answer_in_time_is_held(
    crew: Crew, relay: Relay, target: Target, audited: io.BytesIO
) -> None:
    relay.write(IMPATIENT)
    target.answer = never
    job = add_deploy(crew)
    crew.start()

    await crew.reaches(job, JobStatus.FAILED)

    names = ("attempt", "reason", "on_uncertain", "status")
    [told] = lines(audited, "deploy.uncertain", *names)
    assert told == (1, "no answer in time", "hold", None)
    [(reason,)] = lines(audited, "deploy.failed", "reason")
    assert reason == (
        "no answer in time; the platform may have deployed, so it is not called again without a "
        "human decision"
    )
    assert failure(job) == f"{HELD_ERROR}: {reason}"
    assert f"{DeployHeld.__module__}.{DeployHeld.__name__}" == HELD_ERROR
    assert len(target.calls) == 1


async def test_no_answer_in_time_is_tried_again_where_that_does_no_harm(
    crew: Crew, relay: Relay, target: Target, audited: io.BytesIO
) -> None:
    relay.write(AGAIN)
    target.answers = [never]
    job = add_deploy(crew)
    crew.start()

    await crew.reaches(job, JobStatus.FINISHED)

    assert lines(audited, "deploy.uncertain", "attempt", "on_uncertain") == [(1, "retry")]
    assert lines(audited, "deploy.succeeded", "attempt") == [(2,)]
    assert lines(audited, "deploy.failed") == []


async def test_call_cut_off_by_a_crash_is_followed_by_the_next_attempt(
    crew: Crew, relay: Relay, store: redis.Redis, target: Target, audited: io.BytesIO
) -> None:
    relay.write(AGAIN)
    job = add_deploy(crew)
    store.hset(job.key, "calling", 1)
    crew.start()

    await crew.reaches(job, JobStatus.FINISHED)

    [told] = lines(audited, "deploy.uncertain", "attempt", "reason", "ms")
    assert told == (1, "attempt 1 was cut off before its answer came", None)
    assert lines(audited, "deploy.attempted", "attempt") == [(2,)]
    assert lines(audited, "deploy.succeeded", "attempt") == [(2,)]
    assert store.hmget(job.key, "attempts", "number_of_retries", "calling") == [b"2", b"1", None]
    assert len(target.calls) == 1


async def test_attempts_go_on_counting_after_a_crash(
    crew: Crew, relay: Relay, store: redis.Redis, target: Target, audited: io.BytesIO
) -> None:
    async def broken(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    relay.write(AGAIN)
    target.answers = [broken]
    job = add_deploy(crew)
    store.hset(job.key, "calling", 1)
    crew.start()

    await crew.reaches(job, JobStatus.FINISHED)

    assert lines(audited, "deploy.attempted", "attempt") == [(2,), (3,)]


@pytest.mark.parametrize("attempt", [2, 3])
async def test_attempts_that_were_cut_off_count(
    crew: Crew,
    relay: Relay,
    store: redis.Redis,
    target: Target,
    audited: io.BytesIO,
    attempt: int,
) -> None:
    relay.write(AGAIN)
    target.answer = never
    job = add_deploy(crew)
    store.hset(job.key, "calling", attempt)
    crew.start()

    await crew.reaches(job, JobStatus.FAILED)

    [(reason,)] = lines(audited, "deploy.failed", "reason")
    assert reason.endswith("; attempt 3 was the last, and the platform may have deployed")
    assert failure(job) == f"workers.errors.DeployHeld: {reason}"
    assert len(target.calls) == 3 - attempt


async def test_connection_that_did_not_come_about_is_not_uncertain(
    crew: Crew,
    relay: Relay,
    target: Target,
    audited: io.BytesIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay.write(IMPATIENT)
    monkeypatch.setenv("TEST_PRODUCTION_HOOK", "http://127.0.0.1:1/secret-path")
    job = add_deploy(crew)
    crew.start()

    await crew.reaches(job, JobStatus.FAILED)

    assert len(lines(audited, "deploy.attempted")) == 3
    assert lines(audited, "deploy.uncertain") == []
    assert failure(job).startswith("workers.errors.DeployFailed: connection failed")
