"""Sentinels fail over under load: all is acknowledged and deployed meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from relay.store import connect, connect_async
from tests.faults.sentinels import Watched, watched
from tests.harness import (
    API_TOKEN,
    GITHUB_SECRET,
    GITLAB_SECRET,
    PATIENCE,
    RELAY_YAML,
    Relay,
    Target,
    github_headers,
    github_push,
    sha_of,
    until,
)

SENDERS = 8
MEANWHILE = 40
"""Deliveries that are accepted while there is no master."""


@pytest.fixture
def group() -> Iterator[Watched]:
    with (
        tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as folder,
        watched(Path(folder), least=1) as group,
    ):
        yield group


@pytest.fixture
async def project(group: Watched, target: Target, tmp_path: Path) -> AsyncIterator[Relay]:
    project = Relay(
        tmp_path,
        {
            "RELAY_REDIS_URL": group.url,
            "RELAY_STORE_TIMEOUT": "2s",
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "RELAY_PORT": "0",
            "TEST_GITHUB_SECRET": GITHUB_SECRET,
            "TEST_GITLAB_SECRET": GITLAB_SECRET,
            "TEST_PRODUCTION_HOOK": target.url,
            "TEST_PREVIEW_HOOK": target.url,
            "TEST_API_URL": target.url,
            "TEST_API_TOKEN": API_TOKEN,
        },
    )
    project.write(RELAY_YAML.replace("concurrency: 1\n    supersede: true", "concurrency: 50"))
    yield project
    for process in project.processes:
        await process.stop()


class Load:
    """Senders that are acknowledged at once, each push with a commit of its own."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[str] = []
        self.over = False
        self._url = f"{url}/hooks/github"
        self._numbers = itertools.count()

    async def send(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self.over:
                sha = sha_of(f"push {next(self._numbers)}")
                body = github_push(repo="acme/api", after=sha, ref=f"refs/heads/{sha[:8]}")
                headers = github_headers(body, delivery=f"d-{sha}")
                async with session.post(self._url, data=body, headers=headers) as response:
                    assert response.status == 202
                self.acknowledged.append(sha)
                await asyncio.sleep(0.02)


async def test_master_killed_under_load(project: Relay, target: Target, group: Watched) -> None:
    calls: Counter[str] = Counter()

    async def deploy(request: web.Request) -> web.Response:
        calls[(await request.json())["sha"]] += 1
        return web.Response()

    target.answer = deploy
    receiver, worker = await project.serve(), await project.work()
    load = Load(project.url)
    senders = [asyncio.create_task(load.send()) for _ in range(SENDERS)]
    await until(lambda: len(calls) > 100)
    old = group.master()
    group.kill(old)

    before = len(load.acknowledged)
    # Webhooks are accepted and deploys called meanwhile: nothing needs Redis.
    await until(lambda: len(load.acknowledged) > before + MEANWHILE)
    meanwhile = load.acknowledged[before:]
    await until(lambda: calls.keys() >= {*meanwhile})
    await until(lambda: group.master() != old)
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        while await _readyz(session, project.url) != "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    load.over = True
    await asyncio.gather(*senders)
    await project.settle()

    assert calls == Counter(load.acknowledged)
    assert {line["sha"] for line in receiver.find("delivery.queued")} == {*load.acknowledged}
    assert receiver.process.returncode is worker.process.returncode is None


async def _readyz(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/readyz") as response:
        return str((await response.json())["status"])


async def test_clients_follow_the_master(group: Watched) -> None:
    """A client that was connected to the old master finds the new one."""
    client = connect_async(group.url, timeout=2)
    blocking = connect(group.url)
    async with client:
        assert await client.set("key", "old")
        assert blocking.get("key") == b"old"
        old = group.master()
        group.kill(old)
        await until(lambda: group.master() != old)
        await until(lambda: _writes(group))

        assert await client.get("key") == b"old"
        assert await client.set("key", "new")
        assert blocking.get("key") == b"new"
    blocking.close()


def _writes(group: Watched) -> bool:
    with group.client(group.master()) as master:
        info: dict[str, Any] = master.info("replication")
        return bool(info.get("min_slaves_good_slaves") == 1)
