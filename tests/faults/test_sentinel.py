"""Sentinels fail over under load: what was acknowledged is deployed, or the audit says why not."""

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
    RELAY_YAML,
    Process,
    Relay,
    Target,
    github_headers,
    github_push,
    sha_of,
    until,
)

SENDERS = 8
AFTERWARDS = 40
"""Deliveries that are accepted once the receiver has found the new master."""


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
    """Senders that retry until they are acknowledged, each push with a commit of its own."""

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
                while True:
                    async with session.post(self._url, data=body, headers=headers) as response:
                        if response.status in (200, 202):
                            break
                        assert response.status == 503
                    await asyncio.sleep(0.05)
                self.acknowledged.append(sha)
                await asyncio.sleep(0.02)


def _explained(worker: Process) -> set[str]:
    """Commits of deploys of which the audit says that nobody knows whether they were made."""
    failed = [line for line in worker.find("deploy.failed") if "cut off" in line["reason"]]
    return {line["sha"] for line in [*failed, *worker.find("deploy.uncertain")]}


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

    await until(lambda: group.master() != old)
    # What comes meanwhile waits in the spool.
    await receiver.wait_for("receiver.recovered")
    before = len(load.acknowledged)
    await until(lambda: len(load.acknowledged) > before + AFTERWARDS)
    load.over = True
    await asyncio.gather(*senders)
    await until(lambda: all(calls[sha] or sha in _explained(worker) for sha in load.acknowledged))

    doubled = {sha for sha, number in calls.items() if number > 1}
    assert doubled <= _explained(worker)
    # An answer that was lost with the old master leaves a duplicate at the sender's retry.
    kept = [*receiver.find("delivery.queued"), *receiver.find("delivery.duplicate")]
    assert set(load.acknowledged) <= {line["sha"] for line in kept}
    assert receiver.process.returncode is worker.process.returncode is None


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
