"""The spool on a disk that is really full: a few pages of tmpfs, in a mount namespace of its own.

Redis is away, so that deliveries are spooled until the kernel says ENOSPC.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import redis
from rq import Queue

from tests.faults.small_disk import on_small_disk
from tests.harness import (
    COMMAND,
    PATIENCE,
    Process,
    Relay,
    github_headers,
    github_push,
    sha_of,
    start_server,
)

REFUSALS = 30


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        yield Path(folder)


@pytest.fixture
async def project(relay: Relay, home: Path) -> AsyncIterator[Relay]:
    """The project at a server that does not run yet."""
    made = Relay(
        relay.folder,
        {
            **relay.environ,
            "RELAY_REDIS_URL": f"unix://{home / 'redis.sock'}",
            "RELAY_STORE_TIMEOUT": "400ms",
        },
    )
    yield made
    for process in made.processes:
        await process.stop()


async def serve(project: Relay) -> tuple[Process, Path]:
    """A receiver with its spool on a small disk, and that disk as it sees it."""
    folder = project.folder / "relay-data"
    folder.mkdir()
    receiver = await project.start(*on_small_disk(folder, *COMMAND, "serve"))
    [started] = await receiver.wait_for("receiver.started")
    project.url = started["url"].removesuffix("/hooks/")
    return receiver, Path(f"/proc/{receiver.process.pid}/root{folder}")


def entries(folder: Path) -> int:
    return len(list(folder.iterdir()))


async def push(project: Relay, number: int) -> tuple[int, str | None]:
    """The status of one webhook's answer, and its Retry-After."""
    body = github_push(after=sha_of(str(number)))
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{project.url}/hooks/github",
            data=body,
            headers=github_headers(body, delivery=str(number)),
        ) as response,
    ):
        return response.status, response.headers.get("Retry-After")


async def readyz(project: Relay) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{project.url}/readyz") as response,
    ):
        answer = await response.json()
        return response.status, answer["status"], answer["spool"]


async def fill(project: Relay, numbers: Iterator[int]) -> list[str]:
    """Deliveries that were acknowledged before the disk was full."""
    acknowledged: list[str] = []
    for number in numbers:
        status, after = await push(project, number)
        if status != 202:
            assert (status, after) == (503, "30")
            return acknowledged
        acknowledged.append(f"github--{number}")
    raise AssertionError("the disk was never full")


@pytest.mark.parametrize("space", ["comes back first", "never comes back"])
async def test_a_full_disk_loses_nothing_that_was_acknowledged(
    project: Relay, home: Path, space: str
) -> None:
    receiver, disk = await serve(project)
    numbers = iter(range(1_000))
    acknowledged = await fill(project, numbers)
    assert len(acknowledged) > 10
    [refused] = await receiver.wait_for("delivery.rejected")
    assert refused["reason"] == "the spool cannot be written (No space left on device)"
    assert (refused["status"], refused["sha"]) == (503, sha_of(str(len(acknowledged))))

    # However often it is asked meanwhile, nothing piles up.
    opened = Path(f"/proc/{receiver.process.pid}/fd")
    before = entries(opened)
    for _ in range(REFUSALS):
        assert (await push(project, next(numbers)))[0] == 503
    assert entries(opened) <= before + 3
    assert entries(disk / "spool") == 1

    assert await readyz(project) == (503, "not ready", refused["reason"])

    if space == "comes back first":
        (disk / "filler").unlink()
        more = await fill(project, numbers)
        assert len(more) > 10
        acknowledged += more

    server, socket = await asyncio.to_thread(start_server, home)
    try:
        await receiver.wait_for("receiver.recovered")
        with redis.Redis(unix_socket_path=str(socket)) as client:
            assert Queue("deploy-relay", connection=client).job_ids == acknowledged
        forwarded = receiver.find("delivery.forwarded", verdict="queued")
        assert [line["delivery"] for line in forwarded] == acknowledged
        assert entries(disk / "spool") == 0

        assert (await push(project, next(numbers)))[0] == 202
        assert len(receiver.find("delivery.queued")) == len(acknowledged) + 1
        assert receiver.process.returncode is None
        assert "Traceback" not in project.output()
    finally:
        server.kill()
        server.wait(PATIENCE)
