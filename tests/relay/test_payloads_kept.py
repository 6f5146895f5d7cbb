"""Keeping payloads in a real server: within its bounds, and in nobody's way."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
from redis.asyncio import Redis

from relay import audit, payloads_kept
from relay.payloads_kept import (
    INDEX,
    LONGEST_REST,
    MOST_BODY,
    MOST_HELD,
    MOST_HELD_BYTES,
    OVERHEAD,
    SHARE,
    TOO_LARGE,
    UNCLEAR,
    PayloadKeeper,
    payload_key,
)
from relay.store import connect_async
from tests.harness import PATIENCE, until

JSON = "application/json"
SECONDS = 600


@pytest.fixture
async def connection(store: redis.Redis, server_socket: Path) -> AsyncIterator[Redis]:
    client = connect_async(f"unix://{server_socket}", timeout=2)
    yield client
    await client.aclose()


def body_of(size: int, number: int = 0) -> bytes:
    """JSON that zlib can do little about."""
    noise = random.Random(number).randbytes(size // 2).hex()  # noqa: S311
    return json.dumps({"a": noise}).encode()


def kept(store: redis.Redis) -> dict[str, int]:
    """The payloads that are in Redis, and what they count for."""
    keys: Any = store.keys(payload_key("*"))
    sizes: dict[str, Any] = {key.decode(): store.strlen(key) for key in keys}
    return {key.removeprefix(payload_key("")): size + OVERHEAD for key, size in sizes.items()}


async def keep(keeper: PayloadKeeper, delivery: str, body: bytes, kind: str = JSON) -> None:
    held = keeper.hold(kind, body)
    assert held is not None
    held.keep(delivery)
    held.release()


async def keep_all(connection: Redis, budget: int, bodies: dict[str, bytes]) -> None:
    """Keep them one after the other, and return once all have had their turn."""
    keeper = PayloadKeeper(connection, budget=budget, seconds=SECONDS)
    keeper.start()
    for delivery, body in bodies.items():
        await keep(keeper, delivery, body)
        await until(lambda: not keeper.held)
    await keeper.stop()


async def test_a_payload_is_kept_for_a_while(store: redis.Redis, connection: Redis) -> None:
    await keep_all(connection, MOST_BODY, {"github--1": b'{"ref": "main", "secret": "x"}'})

    value: Any = store.get(payload_key("github--1"))
    assert zlib.decompress(value) == b'{"ref":"main","secret":"****"}'
    assert 0 < store.ttl(payload_key("github--1")) <= SECONDS
    assert 0 < store.ttl(INDEX) <= SECONDS


async def test_secrets_of_now_are_masked(
    store: redis.Redis, connection: Redis, audited: io.BytesIO
) -> None:
    audit.mask({"a-rotated-secret"})
    audit.mask({"a-new-secret"})
    body = b'{"a": "the a-new-secret and \\u0061-rotated-secret"}'
    await keep_all(connection, MOST_BODY, {"github--1": body})

    value: Any = store.get(payload_key("github--1"))
    assert zlib.decompress(value) == b'{"a":"the **** and ****"}'


async def test_of_a_form_its_payload_is_kept(store: redis.Redis, connection: Redis) -> None:
    keeper = PayloadKeeper(connection, budget=MOST_BODY, seconds=SECONDS)
    keeper.start()
    form = urlencode({"payload": '{"a": "é&="}', "other": "1"}).encode()
    await keep(keeper, "github--1", form, "application/x-www-form-urlencoded")
    await until(lambda: not keeper.held)
    await keeper.stop()

    value: Any = store.get(payload_key("github--1"))
    assert zlib.decompress(value) == '{"a":"é&="}'.encode()


@pytest.mark.parametrize(
    ("body", "instead"),
    [
        (b'{"a":"' + b"x" * MOST_BODY + b'"}', TOO_LARGE),
        # It grows while it is masked.
        (b'{"token":[' + b'"x",' * (MOST_BODY // 5) + b'""]}', TOO_LARGE),
        (b'{"a":1e999}', UNCLEAR),
    ],
)
async def test_what_is_not_kept_says_why(
    store: redis.Redis, connection: Redis, body: bytes, instead: bytes
) -> None:
    await keep_all(connection, MOST_BODY, {"github--1": body})

    assert store.get(payload_key("github--1")) == instead


async def test_the_latest_are_kept_within_the_budget(store: redis.Redis, connection: Redis) -> None:
    budget = 20_000
    sizes = [100, 9_000, 300, 2_500, 12_000, 700, 50, 6_000, 1_200, 3_300, 400, 8_000, 90, 2_000]
    for number, size in enumerate(sizes):
        await keep_all(connection, budget, {f"github--{number}": body_of(size, number)})
        found = kept(store)
        assert sum(found.values()) <= budget
        # Nothing but the oldest has gone, and no more than had to.
        first = min(int(name.removeprefix("github--")) for name in found)
        assert sorted(found) == sorted(f"github--{n}" for n in range(first, number + 1))
        assert store.zcard(INDEX) == len(found) + 1


async def test_what_expires_or_is_deleted_does_not_use_the_budget_up(
    store: redis.Redis, connection: Redis
) -> None:
    bodies = {f"github--{number}": body_of(2_000, number) for number in range(30)}
    size = max(len(zlib.compress(body, 1)) for body in bodies.values()) + OVERHEAD
    for number, (delivery, body) in enumerate(bodies.items()):
        await keep_all(connection, 5 * size, {delivery: body})
        if number % 3 == 0:
            store.delete(payload_key(delivery))

    assert set(kept(store)) == {"github--25", "github--26", "github--28", "github--29"}
    assert store.zcard(INDEX) <= 6 + 1


async def test_a_smaller_budget_counts_from_the_next_payload_on(
    store: redis.Redis, connection: Redis
) -> None:
    await keep_all(connection, 10**6, {f"github--{n}": body_of(1_000, n) for n in range(20)})
    assert len(kept(store)) == 20

    await keep_all(connection, 3_000, {"github--new": body_of(1_000)})

    assert sum(kept(store).values()) <= 3_000
    assert "github--new" in kept(store)


async def test_one_that_is_larger_than_the_budget_is_not_kept(
    store: redis.Redis, connection: Redis
) -> None:
    await keep_all(connection, 1_000, {"github--1": body_of(9_000)})

    assert kept(store) == {}


async def test_the_first_body_of_a_delivery_counts(store: redis.Redis, connection: Redis) -> None:
    await keep_all(connection, MOST_BODY, {"github--1": b'{"a":1}'})
    await keep_all(connection, MOST_BODY, {"github--1": b'{"a":2}'})

    value: Any = store.get(payload_key("github--1"))
    assert zlib.decompress(value) == b'{"a":1}'
    assert store.zcard(INDEX) == 2


async def test_bodies_that_wait_are_bounded(connection: Redis) -> None:
    keeper = PayloadKeeper(connection, budget=MOST_BODY, seconds=SECONDS)
    large = b"x" * MOST_BODY

    held = [keeper.hold(JSON, large) for _ in range(20)]
    assert [one is not None for one in held] == [True] * 8 + [False] * 12
    assert (keeper.held, keeper.held_bytes) == (8, MOST_HELD_BYTES)
    # What is too large takes no memory along.
    small = [keeper.hold(JSON, large + b"x") for _ in range(2 * MOST_HELD)]
    assert (keeper.held, keeper.held_bytes) == (MOST_HELD, MOST_HELD_BYTES)

    for one in [*held, *small]:
        if one is not None:
            assert one.body in (large, None)
            one.release()
    assert (keeper.held, keeper.held_bytes) == (0, 0)


async def test_it_takes_a_small_share_of_the_time(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    done = asyncio.Event()
    now = iter((10.0, 10.5, 20.0, 99.0))

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            done.set()
            await asyncio.Event().wait()

    keeper = PayloadKeeper(connection, budget=MOST_BODY, seconds=SECONDS)
    for name in ("github--1", "github--2"):
        await keep(keeper, name, b"{}")
    monkeypatch.setattr(payloads_kept, "monotonic", now.__next__)
    monkeypatch.setattr(payloads_kept, "sleep", pause)
    keeper.start()
    async with asyncio.timeout(PATIENCE):
        await done.wait()
    await keeper.stop()

    assert pauses == [pytest.approx(0.5 * (1 / SHARE - 1)), LONGEST_REST]


async def test_trouble_drops_one_and_is_told_once(
    store: redis.Redis, connection: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = PayloadKeeper(connection, budget=MOST_BODY, seconds=SECONDS)
    store.set(INDEX, "not what it should be")
    with caplog.at_level(logging.WARNING, "relay.payloads"):
        keeper.start()
        for number in range(MOST_HELD):
            await keep(keeper, f"github--{number}", b'{"a":"payload"}')
        await until(lambda: keeper.held < MOST_HELD)
        # The others wait for their turn, and are dropped at once where it ends.
        async with asyncio.timeout(PATIENCE):
            await keeper.stop()

    assert [record.getMessage() for record in caplog.records] == [
        "the payload of a delivery is not kept (WRONGTYPE)"
    ]
    assert keeper.held == MOST_HELD - 1
    assert kept(store) == {}


async def test_it_stops_whatever_becomes_of_the_cancellation(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = PayloadKeeper(connection, budget=MOST_BODY, seconds=SECONDS)
    begun = asyncio.Event()

    async def swallow(_: object) -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(keeper, "_keep", swallow)
    # What took so long would be followed by the longest rest.
    monkeypatch.setattr(payloads_kept, "monotonic", iter((0.0, 1_000.0)).__next__)
    keeper.start()
    await keep(keeper, "github--1", b"{}")
    await keep(keeper, "github--2", b"{}")
    await begun.wait()

    async with asyncio.timeout(PATIENCE):
        await keeper.stop()
    assert keeper.held == 1


async def test_it_goes_on_after_trouble(
    store: redis.Redis, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads_kept, "LONGEST_REST", 0)
    keeper = PayloadKeeper(connection, budget=MOST_BODY, seconds=SECONDS)
    store.set(INDEX, "not what it should be")
    keeper.start()
    await keep(keeper, "github--1", b"{}")
    await until(lambda: not keeper.held)
    store.delete(INDEX)
    await keep(keeper, "github--2", b"{}")
    await until(lambda: not keeper.held)
    await keeper.stop()

    assert set(kept(store)) == {"github--2"}
