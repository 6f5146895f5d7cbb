"""Storing deliveries in a real server: one atomic step each, and RQ can read what is written."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import redis
from rq import Queue
from rq.job import Job, JobStatus

from relay import audit
from relay.audit import delivery_fields
from relay.errors import Malformed, StoreUnavailable
from relay.events import MAX_EVENT, Delivery, Push
from relay.intake import MAX_BATCH, Intake
from relay.queueing import Stored, Verdict
from relay.records import DELIVERY_JOB, RETRY_INTERVALS
from relay.store import connect_async

WINDOW = 600


@pytest.fixture
async def intake(store: redis.Redis, server_socket: Path) -> AsyncIterator[Intake]:
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    opened = Intake(connection, queue="q", window=WINDOW, failure_ttl=99, timeout=2)
    yield opened
    await opened.stop()
    await connection.aclose()


def delivery(name: str = "github--1") -> Delivery:
    event = Push(repo="acme/wéb", ref="refs/heads/main", before="1" * 40, after="2" * 40)
    return Delivery(id=name, source="github", received_at=1.5, event=event)


async def keep(intake: Intake, what: Delivery, fingerprint: str) -> Stored:
    return await intake.store(what, fingerprint, delivery_fields(what))


def ended(store: redis.Redis, name: str, status: str) -> None:
    """Have a job end as a worker would."""
    store.hset(f"rq:job:{name}", "status", status)


async def test_rq_reads_the_job(intake: Intake, store: redis.Redis) -> None:
    assert await keep(intake, delivery(), "digest") == Stored("queued", "github--1")

    job = Job.fetch("github--1", store)
    assert job.func_name == DELIVERY_JOB
    assert msgspec.json.decode(job.args[0], type=Delivery) == delivery()
    assert job.get_status() == JobStatus.QUEUED
    assert (job.origin, job.timeout, job.result_ttl, job.failure_ttl) == ("q", 60, WINDOW, 99)
    assert job.retries_left == len(RETRY_INTERVALS)
    assert job.retry_intervals == list(RETRY_INTERVALS)
    assert job.created_at == job.enqueued_at
    assert job.description == "delivery: push acme/wéb@222222222222"
    assert Queue("q", connection=store).job_ids == ["github--1"]
    assert Queue("q", connection=store) in Queue.all(connection=store)


async def test_rq_would_write_the_same(intake: Intake, store: redis.Redis) -> None:
    await keep(intake, delivery(), "digest")

    ours = Job.fetch("github--1", store)
    written = {key for key, value in ours.to_dict().items() if value not in ("", b"")}
    stored = set(store.hgetall("rq:job:github--1"))

    assert {key.encode() for key in written} == stored - {b"receipt"}


async def test_same_id_is_a_duplicate(intake: Intake, store: redis.Redis) -> None:
    await keep(intake, delivery(), "digest")

    assert await keep(intake, delivery(), "other") == Stored("duplicate", "github--1")
    assert store.llen("rq:queue:q") == 1
    assert store.hget("rq:job:github--1", "redeliveries") == b"1"


async def test_same_body_is_a_duplicate_within_the_window(
    intake: Intake, store: redis.Redis
) -> None:
    await keep(intake, delivery("github--1"), "digest")

    assert await keep(intake, delivery("github--2"), "digest") == Stored("duplicate", "github--1")
    assert not store.exists("rq:job:github--2")
    assert 0 < store.ttl("relay:body:github:digest") <= WINDOW


async def test_copies_at_the_same_moment_are_one(intake: Intake, store: redis.Redis) -> None:
    stored = await asyncio.gather(*(keep(intake, delivery(), "digest") for _ in range(300)))

    assert sorted(answer.verdict for answer in stored) == ["duplicate"] * 299 + ["queued"]
    assert store.llen("rq:queue:q") == 1


async def test_order_of_arrival_is_kept(intake: Intake, store: redis.Redis) -> None:
    names = [f"github--{number}" for number in range(600)]

    await asyncio.gather(*(keep(intake, delivery(name), name) for name in names))

    assert store.lrange("rq:queue:q", 0, -1) == [name.encode() for name in names]


@pytest.mark.parametrize(
    ("own", "deploys", "verdict"),
    [
        ("queued", "", "duplicate"),
        ("started", "", "duplicate"),
        ("scheduled", "", "duplicate"),
        ("failed", "", "requeued"),
        ("stopped", "", "requeued"),
        ("finished", "", "requeued"),
        ("finished", "finished", "duplicate"),
        ("finished", "started", "duplicate"),
        ("finished", "scheduled finished", "duplicate"),
        ("finished", "finished failed", "requeued"),
        ("finished", "canceled", "requeued"),
    ],
)
async def test_redelivery_runs_again_if_something_failed(
    intake: Intake, store: redis.Redis, own: str, deploys: str, verdict: Verdict
) -> None:
    await keep(intake, delivery(), "digest")
    store.lpop("rq:queue:q")
    ended(store, "github--1", own)
    names = [f"deploy-{status}" for status in deploys.split()]
    for name, status in zip(names, deploys.split(), strict=True):
        ended(store, name, status)
    store.hset("rq:job:github--1", "deploys", " ".join(names))
    store.zadd("rq:failed:q", {"github--1": 1})
    store.expire("rq:job:github--1", 5)

    stored = await keep(intake, delivery("github--again"), "digest")

    assert stored == Stored(verdict, "github--1")
    runs_again = verdict == "requeued"
    assert store.lrange("rq:queue:q", 0, -1) == ([b"github--1"] if runs_again else [])
    if runs_again:
        job = Job.fetch("github--1", store)
        assert job.get_status() == JobStatus.QUEUED
        assert job.retries_left == len(RETRY_INTERVALS)
        assert store.ttl("rq:job:github--1") == -1
        assert store.zcard("rq:failed:q") == 0
        assert msgspec.json.decode(job.args[0], type=Delivery).id == "github--1"


async def test_silent_server_is_unavailable(server_socket: Path) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = connect_async(f"redis://127.0.0.1:{port}", timeout=0.2)
    intake = Intake(connection, queue="q", window=9, failure_ttl=9, timeout=0.3)

    with pytest.raises(StoreUnavailable):
        await keep(intake, delivery(), "digest")
    assert await intake.readiness() == ("Redis takes nothing (TimeoutError)", "off", False)

    await connection.aclose()
    server.close()


async def test_whoever_waited_behind_a_failure_does_not_wait_for_another_timeout(
    server_socket: Path,
) -> None:
    asked = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = connect_async(f"redis://127.0.0.1:{port}", timeout=60)
    intake = Intake(connection, queue="q", window=9, failure_ttl=9, timeout=2)
    first = asyncio.create_task(keep(intake, delivery("github--first"), "first"))
    await asked.wait()

    behind = [keep(intake, delivery(f"github--{n}"), str(n)) for n in range(MAX_BATCH * 3)]
    started = time.monotonic()
    answers = await asyncio.gather(first, *behind, return_exceptions=True)

    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert time.monotonic() - started < 6  # one timeout, not four
    await connection.aclose()
    server.close()


async def test_audit_lines_are_written_before_the_sender_is_answered(
    store: redis.Redis, server_socket: Path, audited: io.BytesIO
) -> None:
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    intake = Intake(connection, queue="q", window=WINDOW, failure_ttl=99, timeout=2)

    def lines() -> list[tuple[str, str]]:
        told = [json.loads(line) for line in audited.getvalue().splitlines()]
        return [(line["event"], line["delivery"]) for line in told]

    seen: list[list[tuple[str, str]]] = []
    waiting = asyncio.ensure_future(keep(intake, delivery(), "digest"))
    waiting.add_done_callback(lambda _: seen.append(lines()))
    await waiting
    await keep(intake, delivery("github--2"), "digest")

    assert seen == [[("delivery.queued", "github--1")]]
    assert lines()[1:] == [("delivery.duplicate", "github--2")]
    await connection.aclose()


async def test_an_audit_that_cannot_be_written_accepts_nothing(
    store: redis.Redis, server_socket: Path, audited: io.BytesIO
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    audit.configure(stream=Full())
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    intake = Intake(connection, queue="q", window=WINDOW, failure_ttl=99, timeout=2)
    audit.log.info("delivery.received")
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await keep(intake, delivery(), "digest")
    assert store.keys("*") == []

    audit.configure(stream=audited)
    audit.flush()
    assert b"delivery.received" in audited.getvalue()
    await connection.aclose()


async def test_a_command_that_redis_refuses_leaves_no_trace(
    intake: Intake, store: redis.Redis, server_socket: Path
) -> None:
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    broken = Intake(connection, queue="q", window=0, failure_ttl=99, timeout=2)
    with pytest.raises(StoreUnavailable):
        await keep(broken, delivery(), "digest")
    await connection.aclose()

    assert await keep(intake, delivery(), "digest") == Stored("queued", "github--1")
    assert store.lrange("rq:queue:q", -1, -1) == [b"github--1"]


async def test_a_redelivery_under_another_id_is_found_by_both(
    store: redis.Redis, server_socket: Path, audited: io.BytesIO
) -> None:
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    again = Intake(connection, queue="q", window=WINDOW, failure_ttl=99, timeout=2)
    await keep(again, delivery(), "digest")
    ended(store, "github--1", "failed")

    stored = await keep(again, delivery("github--2"), "digest")

    assert stored == Stored("requeued", "github--1")
    last = json.loads(audited.getvalue().splitlines()[-1])
    assert last["event"] == "delivery.queued"
    assert (last["delivery"], last["first"], last["again"]) == ("github--2", "github--1", True)
    await connection.aclose()


async def test_an_event_without_bounds_is_refused(intake: Intake, store: redis.Redis) -> None:
    push = Push(repo="acme/web", ref="r" * MAX_EVENT, before="1" * 40, after="2" * 40)
    with pytest.raises(Malformed, match="bytes after all"):
        await keep(intake, Delivery("github--1", "github", 1.5, push), "digest")
    assert store.keys("*") == []


async def test_server_that_restarted_is_found_again(intake: Intake, store: redis.Redis) -> None:
    await keep(intake, delivery("github--1"), "1")
    store.script_flush()
    store.client_kill_filter(_type="normal", skipme=True)

    assert (await keep(intake, delivery("github--2"), "2")).verdict == "queued"


async def test_refusing_server_is_unavailable_and_nothing_is_stored(
    intake: Intake, store: redis.Redis
) -> None:
    store.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable):
            await keep(intake, delivery(), "digest")
        assert store.keys("*") == []
    finally:
        store.config_set("maxmemory", "0")
