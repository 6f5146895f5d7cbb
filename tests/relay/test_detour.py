"""Intake with a spool: which failures lead there, and that forwarding repeats nothing."""

from __future__ import annotations

import asyncio
import errno
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError

from relay import audit, forwarding
from relay.audit import delivery_fields
from relay.errors import AuditUnavailable, BatchRefused
from relay.events.event import Delivery, Push
from relay.forwarding import Forwarder
from relay.intake import Intake
from relay.queueing import Record, Stored
from relay.spool import ASIDE, Spool
from relay.store import connect_async
from tests.harness import until


@pytest.fixture
async def intake(
    store: redis.Redis,
    server_socket: Path,
    tmp_path: Path,
    audited: io.BytesIO,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Intake]:
    monkeypatch.setattr(forwarding, "ASK_AGAIN", 0.01)
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    spool = Spool(tmp_path, max_bytes=10_000_000)
    opened = Intake(connection, queue="q", window=60, failure_ttl=60, timeout=2, spool=spool)
    await opened.start()
    yield opened
    await opened.stop()
    await connection.aclose()


def delivery(name: str) -> Delivery:
    event = Push(repo="acme/web", ref="refs/heads/main", before="1" * 40, after="2" * 40)
    return Delivery(id=name, source="github", received_at=1.5, event=event)


async def keep(intake: Intake, name: str) -> Stored:
    return await intake.store(delivery(name), name, delivery_fields(delivery(name)))


def forwarder(intake: Intake) -> Forwarder:
    assert intake._forwarder is not None
    return intake._forwarder


async def forwarded(intake: Intake) -> None:
    await until(lambda: not forwarder(intake).spooling)


def lines(audited: io.BytesIO, *events: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in audited.getvalue().splitlines()]
    return [line for line in told if line["event"] in events]


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """While it is set Redis does what it is told, and its answers get lost."""
    call = AsyncScript.__call__
    losing = asyncio.Event()

    async def lossy(self: AsyncScript, *args: Any, **options: Any) -> Any:
        answer = await call(self, *args, **options)
        if losing.is_set():
            raise RedisConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(AsyncScript, "__call__", lossy)
    return losing


async def test_a_delivery_whose_answer_was_lost_is_not_run_again_though_it_has_failed(
    intake: Intake, lost: asyncio.Event, store: redis.Redis, audited: io.BytesIO
) -> None:
    lost.set()
    assert await keep(intake, "github--1") == Stored("spooled", "github--1")
    assert store.lrange("rq:queue:q", 0, -1) == [b"github--1"]
    # Meanwhile a worker has run it.
    store.lpop("rq:queue:q")
    store.hset("rq:job:github--1", "status", "failed")
    lost.clear()
    await forwarded(intake)

    assert store.llen("rq:queue:q") == 0
    assert store.hget("rq:job:github--1", "status") == b"failed"
    told = lines(audited, "delivery.spooled", "delivery.forwarded", "delivery.queued")
    assert [line["event"] for line in told] == [
        "delivery.spooled",
        "delivery.forwarded",
        "delivery.queued",
    ]
    assert told[1]["verdict"] == "queued"
    # The sender's own redelivery runs it again, as ever.
    assert await keep(intake, "github--1") == Stored("requeued", "github--1")


async def test_a_redelivery_is_told_from_the_first_one_in_the_spool_too(
    intake: Intake, lost: asyncio.Event, store: redis.Redis, audited: io.BytesIO
) -> None:
    assert await keep(intake, "github--1") == Stored("queued", "github--1")
    store.lpop("rq:queue:q")
    store.hset("rq:job:github--1", "status", "failed")
    forwarder(intake).redis_is_away("away")
    stored = await asyncio.gather(*(keep(intake, "github--1") for _ in range(2)))
    assert stored == [Stored("spooled", "github--1")] * 2
    await forwarded(intake)

    told = lines(audited, "delivery.forwarded")
    assert [line["verdict"] for line in told] == ["requeued", "duplicate"]
    assert store.lrange("rq:queue:q", 0, -1) == [b"github--1"]


async def test_an_audit_that_cannot_be_written_is_no_reason_to_spool(
    intake: Intake, audited: io.BytesIO, store: redis.Redis, tmp_path: Path
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    forwarder(intake).redis_is_away("away")
    assert await keep(intake, "github--1") == Stored("spooled", "github--1")
    audit.configure(stream=Full())
    audit.log.info("delivery.received")
    with pytest.raises(AuditUnavailable):
        await keep(intake, "github--2")
    await asyncio.sleep(0.05)
    assert store.keys("rq:job:*") == []
    audit.configure(stream=audited)
    await forwarded(intake)
    assert store.lrange("rq:queue:q", 0, -1) == [b"github--1"]


async def test_what_redis_refuses_by_itself_is_not_spooled(
    intake: Intake, store: redis.Redis, tmp_path: Path
) -> None:
    store.set("rq:job:github--bad", "not a job")
    with pytest.raises(BatchRefused, match="WRONGTYPE"):
        await keep(intake, "github--bad")
    assert files(tmp_path) == []
    assert await keep(intake, "github--good") == Stored("queued", "github--good")


async def test_what_redis_refuses_out_of_the_spool_is_set_aside_and_told(
    intake: Intake, store: redis.Redis, tmp_path: Path, audited: io.BytesIO
) -> None:
    store.set("rq:job:github--bad", "not a job")
    forwarder(intake).redis_is_away("away")
    names = ["github--1", "github--bad", "github--2"]
    await asyncio.gather(*(keep(intake, name) for name in names))
    await forwarded(intake)

    assert store.lrange("rq:queue:q", 0, -1) == [b"github--1", b"github--2"]
    [failed] = lines(audited, "delivery.failed")
    assert (failed["delivery"], failed["level"]) == ("github--bad", "error")
    assert failed["reason"].startswith("Redis refuses it (WRONGTYPE ")
    [kept] = files(tmp_path)
    assert kept.suffix == ASIDE


async def test_a_record_that_is_not_understood_is_set_aside(
    intake: Intake, store: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Spool(tmp_path, max_bytes=10_000_000)
    good = msgspec.json.encode(Record("receipt", "fingerprint", delivery("github--1")))
    other.append([b'{"written": "by a later version"}', good])
    other.close()
    forwarder(intake).redis_is_away("away")
    await forwarder(intake)._look()
    await forwarded(intake)

    assert store.lrange("rq:queue:q", 0, -1) == [b"github--1"]
    assert "a record is not understood" in caplog.text
    assert [file.suffix for file in files(tmp_path)] == [ASIDE]


async def test_readiness_looks_for_itself_and_opens_the_detour(
    intake: Intake, store: redis.Redis, audited: io.BytesIO
) -> None:
    assert await intake.readiness() == ("ok", "empty", True)
    written = store.keys("*")
    assert written == [b"rq:queues"]
    store.config_set("maxmemory", "1")
    try:
        away = ("Redis takes nothing (OutOfMemoryError)", "in use", True)
        assert await intake.readiness() == away
        assert await keep(intake, "github--1") == Stored("spooled", "github--1")
        [degraded] = lines(audited, "receiver.degraded")
        assert degraded["reason"] == away[0]
    finally:
        store.config_set("maxmemory", "0")
    await forwarded(intake)
    assert await intake.readiness() == ("ok", "empty", True)


async def test_what_waits_at_the_moment_when_redis_fails_is_spooled_in_order(
    intake: Intake, store: redis.Redis
) -> None:
    store.config_set("maxmemory", "1")
    names = [f"github--{number}" for number in range(700)]
    try:
        stored = await asyncio.gather(*(keep(intake, name) for name in names[:200]))
    finally:
        store.config_set("maxmemory", "0")
    assert {answer.verdict for answer in stored} == {"spooled"}
    rest = await asyncio.gather(*(keep(intake, name) for name in names[200:]))
    assert {answer.verdict for answer in rest} <= {"spooled", "queued"}
    await until(lambda: store.llen("rq:queue:q") == 700)
    assert store.lrange("rq:queue:q", 0, -1) == [name.encode() for name in names]
