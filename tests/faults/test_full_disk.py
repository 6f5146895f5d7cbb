"""The ledger on a disk that is really full: a little tmpfs, in a mount namespace of its own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from relay.ledger.sqlite import FILE
from tests.faults.small_disk import on_small_disk
from tests.harness import (
    COMMAND,
    PATIENCE,
    Process,
    Relay,
    Target,
    github_headers,
    github_push,
    ledger_rows,
    sha_of,
    until,
)

FREE = 1_500_000
"""Bytes for the empty ledger and its first commits."""

FILLER = 6_000_000
"""Bytes that are freed later."""

REFUSALS = 10

IN_TIME = 4
"""Seconds within which a sender is answered; Gitea waits for 5."""


async def run(relay: Relay) -> tuple[Process, Path]:
    """Receiver and worker with their ledger on a small disk, and that disk as they see it."""
    folder = relay.data_dir
    folder.mkdir()
    relay.environ = {
        **relay.environ,
        "RELAY_CONSOLE_PORT": "off",
        # For so long a worker that ends tries to write what became of its calls.
        "RELAY_SHUTDOWN_GRACE": "1s",
    }
    command = on_small_disk(folder, *COMMAND, "up", free=FREE, filler=FILLER)
    process = await relay.start(*command)
    [started] = await process.wait_for("receiver.started")
    await process.wait_for("worker.started")
    relay.url = started["url"].removesuffix("/hooks/")
    return process, Path(f"/proc/{process.process.pid}/root{folder}")


async def push(relay: Relay, number: int) -> tuple[int, str | None]:
    """The status of one webhook's answer, and its Retry-After."""
    body = github_push(
        repo="acme/api", ref=f"refs/heads/b{number}", after=sha_of(str(number)), note="x" * 2_000
    )
    began = time.monotonic()
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{relay.url}/hooks/github",
            data=body,
            headers=github_headers(body, delivery=str(number)),
        ) as response,
    ):
        assert time.monotonic() - began < IN_TIME
        return response.status, response.headers.get("Retry-After")


async def readyz(relay: Relay) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{relay.url}/readyz") as response,
    ):
        answer = await response.json()
        return response.status, answer["status"], answer["ledger"]


async def until_readyz(relay: Relay, *report: int | str) -> None:
    """Return once /readyz reports this; it looks at the ledger once a second."""
    async with asyncio.timeout(PATIENCE):
        while await readyz(relay) != report:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def fill(relay: Relay, numbers: Iterator[int]) -> list[str]:
    """Commits that were acknowledged before the disk was full."""
    acknowledged: list[str] = []
    for number in numbers:
        status, after = await push(relay, number)
        if status != 202:
            assert (status, after) == (503, "30")
            return acknowledged
        acknowledged.append(sha_of(str(number)))
    raise AssertionError("the disk was never full")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("space", ["comes back", "never comes back"])
async def test_a_full_disk_loses_nothing_that_was_acknowledged(
    relay: Relay, target: Target, tmp_path: Path, space: str
) -> None:
    process, disk = await run(relay)
    numbers = iter(range(5_000))
    acknowledged = await fill(relay, numbers)
    assert len(acknowledged) > 2
    [refused] = await process.wait_for("delivery.rejected")
    assert refused["reason"] == "the ledger takes nothing: the disk is full"
    assert (refused["status"], refused["sha"]) == (503, sha_of(str(len(acknowledged))))

    for _ in range(REFUSALS):
        assert (await push(relay, next(numbers)))[0] == 503
    # A commit that is smaller than a push's may have room for a while.
    await until_readyz(relay, 503, "not ready", refused["reason"])

    if space == "comes back":
        (disk / "filler").unlink()
        for _ in range(5):
            number = next(numbers)
            assert (await push(relay, number))[0] == 202
            acknowledged.append(sha_of(str(number)))
        await until(lambda: set(acknowledged) <= set(called_for(target)), patience=90)
        await process.wait_for("deploy.succeeded", count=len(acknowledged))
        await until_readyz(relay, 200, "ready", "ok")
    copy = copy_of_ledger(disk, tmp_path)
    kept = {row["sha"] for row in ledger_rows(copy, "SELECT sha FROM delivery")}
    assert set(acknowledged) <= kept
    assert ledger_rows(copy, "PRAGMA quick_check") == [{"quick_check": "ok"}]
    doubled = {sha for sha, times in called_for(target).items() if times > 1}
    assert doubled <= {row["sha"] for row in ledger_rows(copy, _UNCERTAIN)}
    assert process.process.returncode is None
    assert "Traceback" not in relay.output()


def called_for(target: Target) -> Counter[str]:
    """How often the platform was called, by commit."""
    return Counter(json.loads(body)["sha"] for *_, body in target.calls)


def copy_of_ledger(disk: Path, folder: Path) -> Path:
    """A folder with what the ledger on the small disk holds, as this process cannot open it there:
    SQLite follows links, and the way there is one."""
    copy = folder / "copy"
    copy.mkdir()
    for file in disk.glob("ledger.db*"):
        if not file.name.endswith("-shm"):
            (copy / file.name).write_bytes(file.read_bytes())
    with sqlite3.connect(copy / FILE) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return copy


_UNCERTAIN = """
SELECT v.sha FROM attempt a JOIN deploy d ON d.id = a.deploy JOIN delivery v ON v.id = d.delivery
WHERE a.outcome = 'uncertain'
"""
