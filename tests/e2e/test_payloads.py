"""Payloads from a real receiver to whoever asks: kept while it can be, and in nobody's way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import redis

from relay.payloads_kept import INDEX, MOST_HELD, payload_key
from tests.harness import (
    COMMAND,
    GITHUB_SECRET,
    PATIENCE,
    Relay,
    github_headers,
    github_push,
    start_server,
    until,
)


async def payload_of(relay: Relay, delivery: str) -> tuple[int, str, str]:
    """What ``deliveries show --payload`` ends with and says."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "deliveries", "show", delivery, "--payload"),
        cwd=relay.folder,
        env={**os.environ, **relay.environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_a_payload_without_its_secrets(relay: Relay, store: redis.Redis) -> None:
    await relay.serve()
    pushed = json.loads(github_push(note=f"it is {GITHUB_SECRET}!")) | {"secret": "the-hook's"}
    body = json.dumps(pushed).encode()

    assert (await relay.post("github", body, github_headers(body, delivery="1")))[0] == 202
    await until(lambda: store.exists(payload_key("github--1")))
    code, output, _ = await payload_of(relay, "github--1")

    assert code == 0
    repository = pushed["repository"] | {"description": "it is ****!"}
    assert json.loads(output) == pushed | {"secret": "****", "repository": repository}


async def test_switched_off_nothing_is_written(relay: Relay, store: redis.Redis) -> None:
    relay.environ = {**relay.environ, "RELAY_PAYLOADS_KEPT": "0"}
    receiver = await relay.serve()
    assert (await relay.push(delivery="1"))[0] == 202

    assert await payload_of(relay, "github--1") == (
        1,
        "",
        "payloads are not kept: RELAY_PAYLOADS_KEPT is 0\n",
    )
    assert await receiver.stop() == 0
    assert store.keys("relay:payload*") == []


async def test_what_went_through_the_spool_has_no_payload(relay: Relay) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        address = f"unix://{Path(folder) / 'redis.sock'}"
        relay.environ = {**relay.environ, "RELAY_REDIS_URL": address}
        receiver = await relay.serve()
        assert await relay.push(delivery="1") == (
            202,
            {"status": "spooled", "delivery": "github--1"},
        )

        process, socket = start_server(Path(folder))
        try:
            await receiver.wait_for("delivery.forwarded", delivery="github--1")
            code, _, why = await payload_of(relay, "github--1")
            assert await receiver.stop() == 0
            with redis.Redis(unix_socket_path=str(socket)) as store:
                assert store.keys("relay:payload*") == []
        finally:
            process.kill()
            process.wait(PATIENCE)
    # It was not even tried.
    assert "is not kept" not in "".join(receiver.output)
    assert (code, why) == (
        1,
        "the payload is not kept: Redis took the delivery late, and the spool keeps none\n",
    )


async def test_what_waits_holds_up_neither_answers_nor_the_end(
    relay: Relay, store: redis.Redis
) -> None:
    # After this failure the keeper rests for longer than the test may take.
    store.set(INDEX, "not what it should be")
    receiver = await relay.serve()
    for number in range(MOST_HELD + 10):
        status, answer = await relay.push(note=str(number))
        assert (status, answer["status"]) == (202, "queued")
    store.delete(INDEX)

    assert await receiver.stop(signal.SIGTERM) == 0
    told: list[Any] = [line for line in receiver.output if "is not kept" in line]
    assert [json.loads(line)["message"] for line in told] == [
        "the payload of a delivery is not kept (WRONGTYPE)"
    ]
    assert store.keys("relay:payload*") == []
