"""A ledger that takes nothing: every sender is told so in time, and nothing is acknowledged that is
not kept. Real processes, and disks that are really full."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from relay.ledger.ledger import prepare
from relay.ledger.sqlite import FILE
from tests.faults.small_disk import on_small_disk
from tests.harness import COMMAND, Process, Relay, github_headers
from tests.receive.desk import deliveries, locked, route, rows, running
from tests.receive.test_handler import MakeClient, Server
from tests.receive.webhooks import push

SENDERS = 400
LONGEST = 4.0
"""Seconds within which each of them is answered. Gitea and Forgejo wait 5."""

ROOM = 3_000_000
"""Bytes of a small disk: some commits, each of which writes 20 pages or so."""

CRASHING = """
import os, sys
from relay.receive.intake import Intake
Intake._tell = lambda *_: os._exit(9)
sys.argv = ["deploy-relay", "serve"]
from relay.cli import main
main()
"""


async def send(
    session: aiohttp.ClientSession, url: str, number: int
) -> tuple[int, str | None, float]:
    """Return the status, Retry-After and the seconds until the answer."""
    body = push(f"{number}", f"{number + 1}", number)
    since = time.monotonic()
    async with session.post(
        f"{url}/hooks/github", data=body, headers=github_headers(body, delivery=str(number))
    ) as response:
        await response.read()
        return response.status, response.headers.get("Retry-After"), time.monotonic() - since


async def test_all_who_wait_for_a_locked_ledger_are_told_in_time(
    relay: Relay, tmp_path: Path
) -> None:
    receiver = await relay.serve()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        assert (await send(session, relay.url, 0))[0] == 202
        async with locked(relay.folder / "relay-data"):
            answers = await asyncio.gather(
                *(send(session, relay.url, number + 1) for number in range(SENDERS))
            )
        after = await send(session, relay.url, SENDERS + 1)

    assert {(status, retry) for status, retry, _ in answers} == {(503, "30")}
    assert max(seconds for *_, seconds in answers) < LONGEST
    assert after[0] == 202
    assert len(receiver.find("delivery.rejected", status=503)) == SENDERS
    assert [row["guid"] for row in deliveries(relay.folder / "relay-data")] == [
        "0",
        str(SENDERS + 1),
    ]


async def test_a_damaged_file_is_told_and_nothing_is_acknowledged(
    aiohttp_client: MakeClient, audited: io.BytesIO, tmp_path: Path
) -> None:
    prepare(tmp_path)
    pages = rows(tmp_path, "SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'delivery'")
    with (tmp_path / FILE).open("r+b") as file:
        for page in pages:
            file.seek((page["rootpage"] - 1) * 4096)
            file.write(b"\xff" * 4096)
    async with running(tmp_path, [route()]) as desk:
        client = await aiohttp_client(Server(desk.receiver))
        url = str(client.make_url("")).removesuffix("/")
        async with aiohttp.ClientSession() as session:
            answers = [await send(session, url, number) for number in range(5)]

    assert {(status, retry) for status, retry, _ in answers} == {(503, "30")}
    assert max(seconds for *_, seconds in answers) < LONGEST
    lines = [json.loads(text) for text in audited.getvalue().splitlines()]
    reasons = {line["reason"] for line in lines if line["event"] == "delivery.rejected"}
    assert reasons == {
        "the ledger takes nothing: the file is damaged: run deploy-relay ledger check"
    }


async def test_a_full_disk_loses_nothing_that_was_acknowledged(
    relay: Relay, tmp_path: Path
) -> None:
    folder = relay.folder / "relay-data"
    folder.mkdir()
    receiver = await relay.start(*on_small_disk(folder, *COMMAND, "serve", free=ROOM, filler=ROOM))
    [started] = await receiver.wait_for("receiver.started")
    url = started["url"].removesuffix("/hooks/")
    disk = Path(f"/proc/{receiver.process.pid}/root{folder}")
    async with aiohttp.ClientSession() as session:
        acknowledged = await fill(session, url, 0)
        assert len(acknowledged) > 10
        answers = [await send(session, url, 9_000 + number) for number in range(20)]
        assert {status for status, *_ in answers} == {503}
        assert max(seconds for *_, seconds in answers) < LONGEST
        async with session.get(f"{url}/readyz") as response:
            assert response.status == 503
            assert (await response.json())["ledger"] == "the ledger takes nothing: the disk is full"

        (disk / "filler").unlink()
        more = await fill(session, url, len(acknowledged))
        assert len(more) > 10
    # SQLite would follow the link of /proc to the folder as this process sees it.
    for name in (FILE, f"{FILE}-wal"):
        shutil.copy(disk / name, tmp_path / name)
    kept = {row["guid"] for row in deliveries(tmp_path)}
    assert {*acknowledged, *more} <= kept


async def fill(session: aiohttp.ClientSession, url: str, first: int) -> list[str]:
    """Return the ids that were acknowledged before the disk was full."""
    acknowledged: list[str] = []
    for number in range(first, first + 5_000):
        status, retry, _ = await send(session, url, number)
        if status != 202:
            assert (status, retry) == (503, "30")
            return acknowledged
        acknowledged.append(str(number))
    raise AssertionError("the disk was never full")


async def test_a_crash_between_commit_and_answer_makes_the_retry_a_duplicate(
    relay: Relay,
) -> None:
    crashing: Process = await relay.start(sys.executable, "-c", CRASHING, *COMMAND[-1:])
    [started] = await crashing.wait_for("receiver.started")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await send(session, started["url"].removesuffix("/hooks/"), 0)
    assert await crashing.process.wait() == 9

    receiver = await relay.serve()
    async with aiohttp.ClientSession() as session:
        status, *_ = await send(session, relay.url, 0)

    assert status == 200
    assert receiver.find("delivery.duplicate", first="delivery-1")
    [row] = deliveries(relay.folder / "relay-data")
    assert (row["status"], row["redeliveries"]) == ("queued", 1)
