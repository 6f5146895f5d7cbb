"""Refused requests are sums in the ledger, and cost no commit each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from relay.ledger.ledger import Ledger
from relay.receive.refusals import HOUR, MOST_SUMS, Refusals
from tests.harness import github_headers
from tests.receive.desk import locked, route, rows, running
from tests.receive.test_handler import Server
from tests.receive.webhooks import push

COLUMNS = "SELECT source, status, count, last_reason, last_remote FROM refusal ORDER BY status"


async def test_refusals_are_summed_by_source_and_status(
    aiohttp_client: Any, tmp_path: Path
) -> None:
    body = push("a", "b")
    async with running(tmp_path, [route()]) as desk:
        client = await aiohttp_client(Server(desk.receiver))
        for _ in range(100):
            headers = github_headers(body, secret="guess")
            await client.post("/hooks/github", data=body, headers=headers)
        for number in range(20):
            await client.post(f"/hooks/nobody-{number}", data=body, headers=headers)

    signature = "no configured secret made this signature"
    assert [tuple(row.values()) for row in rows(tmp_path, COLUMNS)] == [
        ("github", 401, 100, signature, "127.0.0.1"),
        ("", 404, 20, "no source of this name in relay.yaml", "127.0.0.1"),
    ]


async def test_many_refusals_are_few_commits(
    aiohttp_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = 0
    commit = Ledger.commit

    async def counted(self: Ledger, *args: Any) -> Any:
        nonlocal commits
        commits += 1
        return await commit(self, *args)

    monkeypatch.setattr(Ledger, "commit", counted)
    async with running(tmp_path, [route()]) as desk:
        client = await aiohttp_client(Server(desk.receiver))
        since = asyncio.get_running_loop().time()
        for _ in range(300):
            await client.post("/hooks/nobody", data=b"")
        seconds = asyncio.get_running_loop().time() - since

    assert commits <= seconds + 3


async def test_what_the_ledger_does_not_take_is_written_later(tmp_path: Path) -> None:
    async with running(tmp_path, [route()], patience=0.1) as desk:
        refusals = Refusals(desk.ledger)
        async with locked(tmp_path):
            refusals.add("github", 401, "first", "192.0.2.1", 7.0 * HOUR)
            await refusals.stop()
        refusals.add("github", 401, "second \udcff", "192.0.2.2", 7.0 * HOUR + 1)
        await refusals.stop()

    assert [tuple(row.values()) for row in rows(tmp_path, COLUMNS)] == [
        ("github", 401, 2, "second ?", "192.0.2.2")
    ]


async def test_the_number_of_sums_is_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, [route()]) as desk:
        refusals = Refusals(desk.ledger)
        for hour in range(MOST_SUMS + 50):
            refusals.add("github", 401, "r", "192.0.2.1", float(hour * HOUR))
        await refusals.stop()

    assert len(rows(tmp_path, COLUMNS)) == MOST_SUMS
