"""A flood of connections, many large bodies, and a forbidden target, against real processes."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.harness import Relay, Target, github_headers, github_push

CONNECTIONS = int(os.environ.get("RELAY_TEST_CONNECTIONS", "400"))
"""Of the slow ones; the process of the test needs as many files."""

FILES = 256
"""That the process of the test may need besides."""

ANSWERED_WITHIN = 30
"""Seconds that a normal sender waits at most."""

MEBIBYTE = 1024 * 1024


@pytest.fixture
def files() -> Iterator[None]:
    """As many files as the connections need, where the hard limit allows them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} files and may open {hard}")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connect(relay: Relay, first: bytes) -> asyncio.StreamWriter:
    host, _, port = relay.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(first)
    return writer


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.usefixtures("files")
async def test_among_slow_connections_a_normal_sender_is_answered(relay: Relay) -> None:
    relay.environ = {
        **relay.environ,
        "RELAY_MAX_CONNECTIONS": "100",
        # The flood does not end by itself within the time that a sender may wait.
        "RELAY_HEADER_TIMEOUT": str(4 * ANSWERED_WITHIN),
    }
    await relay.serve()
    async with AsyncExitStack() as flood:
        for number in range(CONNECTIONS):
            half = b"POST /hooks/github HTTP/1.1\r\nHost: relay\r\nX-%d: " % number
            flood.push_async_callback(close, await connect(relay, half))
            if number % (CONNECTIONS // 10) == 0:
                started = time.monotonic()
                status, _ = await relay.push(note=str(number))
                assert status == 202
                assert time.monotonic() - started < ANSWERED_WITHIN
        assert (await relay.push(note="last"))[0] == 202


async def test_a_body_that_is_cut_off_to_make_room_is_audited_as_that(relay: Relay) -> None:
    relay.environ = {**relay.environ, "RELAY_MAX_CONNECTIONS": "1"}
    receiver = await relay.serve()
    host, _, port = relay.url.removeprefix("http://").partition(":")
    body = github_push()
    reader, writer = await asyncio.open_connection(host, int(port))
    length = {"Host": "relay", "Content-Length": str(len(body)), "Expect": "100-continue"}
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in (github_headers(body) | length).items()
    )
    writer.write(f"POST /hooks/github HTTP/1.1\r\n{lines}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(body[:-1])

    assert (await relay.push(note="another"))[0] == 202

    assert await reader.read() == b""
    [cut_off] = await receiver.wait_for("delivery.rejected")
    writer.close()
    assert cut_off["reason"] == "the body was cut off to make room for another connection"
    assert (cut_off["status"], cut_off["source"]) == (503, "github")


def memory(pid: int) -> int:
    """Bytes of memory that a process has at this moment."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs Linux's account of memory")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("signed", [True, False])
async def test_many_large_bodies_take_no_more_memory_than_they_may(
    relay: Relay, *, signed: bool
) -> None:
    relay.environ = {**relay.environ, "RELAY_BODIES_IN_MEMORY": str(32 * MEBIBYTE)}
    receiver = await relay.serve()
    before = memory(receiver.process.pid)
    body = github_push(note="x" * (24 * MEBIBYTE))
    headers = github_headers(body) if signed else {"Content-Type": "application/json"}

    async def post(session: aiohttp.ClientSession, number: int) -> int:
        one = headers | {"X-GitHub-Delivery": str(number)}
        sent = io.BytesIO(body)
        async with session.post(f"{relay.url}/hooks/github", data=sent, headers=one) as response:
            return response.status

    async with aiohttp.ClientSession() as session:
        posts = (post(session, number) for number in range(12))
        answers = await asyncio.gather(*posts, return_exceptions=True)

    statuses = {answer for answer in answers if isinstance(answer, int)}
    assert statuses <= ({202, 200, 503} if signed else {401})
    assert statuses
    # Pieces are joined to one body, then parsed, and then looked through and packed for the ledger:
    # a few copies of one body for a moment, however many come.
    assert memory(receiver.process.pid) - before < (32 + 4 * 24 if signed else 16) * MEBIBYTE
    assert (await relay.push())[0] == 202


async def test_a_target_that_is_not_allowed_fails_with_the_reason(
    relay: Relay, target: Target
) -> None:
    relay.environ = {**relay.environ, "RELAY_ALLOWED_NETWORKS": "10.0.0.0/8"}
    await relay.serve()
    worker = await relay.work()
    await relay.push()

    [failed] = await worker.wait_for("deploy.failed")

    assert failed["reason"] == (
        "the target's address is refused: loopback (127.0.0.0/8); "
        "RELAY_ALLOWED_NETWORKS can allow it"
    )
    assert target.calls == []
    assert worker.find("deploy.retry_scheduled") == []
