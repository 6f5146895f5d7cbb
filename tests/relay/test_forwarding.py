"""When deliveries go to the spool, in which order they leave it, and what cannot stop that."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay import forwarding
from relay.errors import AuditUnavailable, BatchRefused, RedisUnavailable, SpoolUnavailable
from relay.forwarding import MAX_BATCH, Forwarder
from relay.spool import ASIDE, Spool
from tests.harness import until


class Redis:
    """Takes records, or does not; keeps what it took and counts how often it was asked."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.error: Exception = RedisUnavailable("away")
        self.refuses: set[bytes] = set()
        self.taken: list[bytes] = []
        self.asked = 0
        self.batches: list[int] = []
        self.slow = asyncio.Event()
        self.slow.set()
        self.slow_from = 0

    async def take(self, records: Sequence[bytes]) -> None:
        self.asked += 1
        self.batches.append(len(records))
        await asyncio.sleep(0)
        if not self.up.is_set():
            raise self.error
        if len(records) >= self.slow_from:
            await self.slow.wait()
            if not self.up.is_set():
                raise self.error
        if self.refuses & set(records):
            raise BatchRefused("it will not have it")
        self.taken += records


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, max_bytes=100_000)


@pytest.fixture
async def forwarder(
    redis: Redis, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Forwarder]:
    monkeypatch.setattr(forwarding, "ASK_AGAIN", 0.01)
    made = Forwarder(spool, redis.take, timeout=5)
    await made.start()
    yield made
    redis.slow.set()
    await made.stop()


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def numbers(start: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, end)]


async def test_while_redis_is_away_all_is_kept_and_then_forwarded_in_order(
    forwarder: Forwarder, redis: Redis, tmp_path: Path
) -> None:
    assert not forwarder.spooling
    forwarder.redis_is_away("it is gone")
    assert (forwarder.spooling, forwarder.away) == (True, "it is gone")
    for start in range(0, 1000, 100):
        assert await forwarder.keep(numbers(start, start + 100))
    await until(lambda: forwarder.away == "away")
    assert redis.taken == []

    redis.up.set()
    await until(lambda: not forwarder.spooling)

    assert redis.taken == numbers(0, 1000)
    assert forwarder.away == ""
    assert files(tmp_path) == []
    assert not await forwarder.keep([b"no longer"])


async def test_what_arrives_while_it_catches_up_goes_behind(
    forwarder: Forwarder, redis: Redis
) -> None:
    forwarder.redis_is_away("away")
    await forwarder.keep(numbers(0, 500))
    redis.up.set()
    direct: list[bytes] = []
    for number in range(500, 3000):
        record = b"%d" % number
        if not (forwarder.spooling and await forwarder.keep([record])):
            direct.append(record)
            break
    assert direct, "it never caught up with a sender that does not pause"
    assert redis.taken == numbers(0, int(direct[0]))


async def test_what_arrives_while_the_last_batch_is_forwarded_waits_for_it(
    forwarder: Forwarder, redis: Redis
) -> None:
    redis.slow.clear()
    redis.slow_from = 1
    forwarder.redis_is_away("away")
    await forwarder.keep([b"1"])
    redis.up.set()
    await until(lambda: redis.batches[-1] == 1)

    second = asyncio.create_task(forwarder.keep([b"2"]))
    while not forwarder._turn._waiters:
        await asyncio.sleep(0)
        assert not second.done()
    redis.slow.set()

    assert not await second, "it has to go to Redis, behind the one before it"
    assert redis.taken == [b"1"]


async def test_many_senders_cannot_keep_it_from_catching_up(
    forwarder: Forwarder, redis: Redis
) -> None:
    forwarder.redis_is_away("away")
    await forwarder.keep(numbers(0, 2000))
    redis.up.set()

    async def sender() -> None:
        while forwarder.spooling and await forwarder.keep([b"x"] * 20):
            pass

    async with asyncio.timeout(20):
        await asyncio.gather(*(sender() for _ in range(8)))
    assert not forwarder.spooling


async def nobody_waits(forwarder: Forwarder, redis: Redis) -> None:
    """Redis hangs when it is asked, and deliveries are kept all the same."""
    asked = redis.asked
    await until(lambda: redis.asked == asked + 1)
    async with asyncio.timeout(4):
        for _ in range(10):
            assert await forwarder.keep([b"1"])
    assert redis.asked == asked + 1
    assert redis.batches[-1] == 0
    redis.slow.set()
    await until(lambda: not forwarder.spooling)


async def test_nobody_waits_for_a_redis_that_is_known_to_be_away(
    forwarder: Forwarder, redis: Redis
) -> None:
    redis.up.set()
    for _ in range(2):
        redis.slow.clear()
        forwarder.redis_is_away("it hangs")
        await nobody_waits(forwarder, redis)


async def test_nobody_waits_for_a_redis_that_came_back_and_went_again(
    forwarder: Forwarder, redis: Redis
) -> None:
    redis.slow.clear()
    redis.slow_from = 1
    forwarder.redis_is_away("away")
    await forwarder.keep([b"1"])
    redis.up.set()
    await until(lambda: redis.batches[-1] == 1)
    redis.up.clear()
    redis.slow.set()
    await until(lambda: forwarder.away == "away")
    redis.slow.clear()
    redis.slow_from = 0
    redis.up.set()
    await nobody_waits(forwarder, redis)


async def test_an_audit_that_takes_nothing_is_not_an_absent_redis(
    forwarder: Forwarder, redis: Redis
) -> None:
    redis.error = AuditUnavailable("full")
    forwarder.redis_is_away("away")
    await until(lambda: redis.asked > 2)
    assert forwarder.away == "away"
    redis.up.set()
    await until(lambda: not forwarder.spooling)


async def test_whatever_goes_wrong_it_goes_on(
    forwarder: Forwarder, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis.error = ZeroDivisionError()
    forwarder.redis_is_away("away")
    await forwarder.keep([b"1"])
    await until(lambda: redis.asked > 2)
    assert "forwarding failed" in caplog.text
    redis.up.set()
    await until(lambda: redis.taken == [b"1"])


async def test_what_redis_refuses_holds_nothing_up(
    forwarder: Forwarder, redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    redis.refuses = {b"17", b"300"}
    forwarder.redis_is_away("away")
    await forwarder.keep(numbers(0, 600))
    redis.up.set()
    await until(lambda: not forwarder.spooling)

    assert redis.taken == [number for number in numbers(0, 600) if number not in redis.refuses]
    [kept] = files(tmp_path)
    assert kept.suffix == ASIDE
    assert b"17" in kept.read_bytes()
    assert caplog.text.count("a delivery cannot be forwarded: it will not have it") == 2
    assert max(redis.batches) == MAX_BATCH
    assert len(redis.batches) < 60


async def test_a_refusal_by_a_redis_that_is_going_sets_nothing_aside(
    redis: Redis, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "ASK_AGAIN", 0.01)
    answers: list[Exception | None] = [None, BatchRefused("?"), RedisUnavailable("away"), None]

    async def take(records: Sequence[bytes]) -> None:
        answer = answers.pop(0) if answers else None
        if answer is not None:
            raise answer
        redis.taken += records

    forwarder = Forwarder(spool, take, timeout=5)
    forwarder.redis_is_away("away")
    await forwarder.keep([b"1"])
    await forwarder.start()
    await until(lambda: not forwarder.spooling)
    assert redis.taken == [b"1"]
    assert files(tmp_path) == []
    await forwarder.stop()


async def test_leftovers_of_another_receiver_are_found_at_the_start_and_later(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "LOOK_AGAIN", 0.01)
    redis.up.set()
    early, late = Spool(tmp_path, max_bytes=10_000), Spool(tmp_path, max_bytes=10_000)
    early.append([b"1"])
    late.append([b"2"])
    early.close()
    forwarder = Forwarder(Spool(tmp_path, max_bytes=10_000), redis.take, timeout=5)
    await forwarder.start()
    assert forwarder.spooling
    await until(lambda: not forwarder.spooling)
    assert redis.taken == [b"1"]
    late.close()
    await until(lambda: redis.taken == [b"1", b"2"])
    await forwarder.stop()


async def test_what_is_left_at_the_end_stays_on_the_disk(
    redis: Redis, spool: Spool, tmp_path: Path
) -> None:
    forwarder = Forwarder(spool, redis.take, timeout=5)
    await forwarder.start()
    forwarder.redis_is_away("away")
    await forwarder.keep([b"1"])
    await forwarder.stop()

    again = Spool(tmp_path, max_bytes=1000)
    assert again.adopt()
    assert again.read(9).records == [b"1"]


async def test_a_disk_that_hangs_holds_nobody(
    redis: Redis, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    append = spool.append

    def hang(records: Sequence[bytes]) -> None:
        goes_on.wait(10)
        append(records)

    monkeypatch.setattr(spool, "append", hang)
    forwarder = Forwarder(spool, redis.take, timeout=0.05)
    forwarder.redis_is_away("away")
    with pytest.raises(SpoolUnavailable, match="the spool's disk does not answer"):
        await forwarder.keep([b"1"])
    goes_on.set()


async def test_the_audit_says_when_it_begins_and_ends(
    audited: io.BytesIO, redis: Redis, spool: Spool
) -> None:
    forwarder = Forwarder(spool, redis.take, timeout=5)
    redis.up.set()
    forwarder.redis_is_away("it is gone")
    forwarder.redis_is_away("it is still gone")
    await forwarder.start()
    await until(lambda: not forwarder.spooling)
    await forwarder.stop()
    lines: list[dict[str, Any]] = [json.loads(line) for line in audited.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("receiver.degraded", "warning"),
        ("receiver.recovered", "info"),
    ]
    assert lines[0]["reason"] == "it is gone"
    assert lines[1]["seconds"] >= 0
