"""The sweep makes jobs for what is due and has none, and one process at a time sweeps."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from relay.ledger.due import read_duty
from relay.ledger.ledger import Ledger, prepare
from relay.queue import sweep as module
from relay.queue.rq_job import Wakeup
from relay.queue.sweep import Sweep
from relay.queue.wakeups import Wakeups
from tests.harness import until

LIST = "rq:queue:q"


class Yard:
    """A ledger with deliveries that wait to be routed, and the processes that sweep it."""

    def __init__(self, url: str, folder: Path, ledger: Ledger) -> None:
        self.url = url
        self.folder = folder
        self.ledger = ledger

    async def wait_for_routing(self, count: int) -> None:
        """Have so many more deliveries wait, without a job."""

        async def work(tx: Any) -> None:
            ref = await tx.row("insert_ref", {"repository": str(count), "name": "r"})
            for number in range(count):
                texts = dict.fromkeys(
                    (
                        *("source", "guid", "kind", "action", "repo", "ref_name", "branch", "sha"),
                        *("sender", "author", "remote", "message", "event", "turns", "config"),
                        *("reason", "uncertain", "trace", "requested_by"),
                    ),
                    str(number),
                )
                await tx.row(
                    "insert_delivery",
                    {
                        **texts,
                        "body": b"",
                        "received_at": tx.now,
                        "ref": ref["id"],
                        "state": 0,
                        "verdict": "new",
                        "status": "queued",
                        "replay_of": None,
                        "next_at": tx.now,
                    },
                )

        await self.ledger.commit(work)

    @asynccontextmanager
    async def sweeping(self, **options: Any) -> AsyncIterator[Sweep]:
        """A process that sweeps when it has the duty."""
        wakeups = Wakeups(self.url, "q")
        wakeups.start()
        options = {"period": 0.05, "fresh": 0, "lease": 0.6, **options}
        sweep = Sweep(self.ledger, wakeups, url=self.url, queue="q", **options)
        sweep.start()
        try:
            yield sweep
        finally:
            await sweep.stop()
            await wakeups.stop()


@pytest.fixture
async def yard(store: redis.Redis, server_socket: Path, tmp_path: Path) -> AsyncIterator[Yard]:
    prepare(tmp_path)
    ledger = Ledger(tmp_path)
    yield Yard(f"unix://{server_socket}", tmp_path, ledger)
    await ledger.close()


def jobs(store: Any) -> list[str]:
    return [one.decode() for one in store.lrange(LIST, 0, -1)]


def has_jobs(store: redis.Redis, *ids: str) -> Callable[[], bool]:
    return lambda: jobs(store) == list(ids)


def lines(audited: io.BytesIO, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in audited.getvalue().splitlines()]
    return [line for line in told if line["event"] == event]


async def test_what_is_due_and_has_no_job_gets_one(yard: Yard, store: redis.Redis) -> None:
    await yard.wait_for_routing(3)
    async with yard.sweeping():
        await until(has_jobs(store, "deliveries-1-3"))
        await yard.wait_for_routing(1)
        await until(has_jobs(store, "deliveries-1-3", "deliveries-4-4"))
        mark = store.get("relay:q:mark")
        await until(lambda: store.get("relay:q:mark") != mark)
    assert len(jobs(store)) == 2


async def test_what_came_just_now_is_left_to_the_wake_up_that_is_under_way(
    yard: Yard, store: redis.Redis
) -> None:
    await yard.wait_for_routing(1)
    async with yard.sweeping(fresh=60):
        await until(lambda: store.exists("relay:q:mark"))
        mark = store.get("relay:q:mark")
        await until(lambda: store.get("relay:q:mark") != mark)
        assert jobs(store) == []
    async with yard.sweeping(fresh=0.1):
        await until(has_jobs(store, "deliveries-1-1"))


async def test_what_this_process_runs_needs_no_job(yard: Yard, store: redis.Redis) -> None:
    await yard.wait_for_routing(3)
    async with yard.sweeping(running=lambda: [Wakeup("deliveries", 1, 2)]):
        await until(has_jobs(store, "deliveries-3-3"))


async def test_a_job_that_was_taken_is_made_again_when_nothing_came_of_it(
    yard: Yard, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    await yard.wait_for_routing(1)
    async with yard.sweeping():
        await until(has_jobs(store, "deliveries-1-1"))
        store.lpop(LIST)
        await until(has_jobs(store, "deliveries-1-1"))


async def test_a_job_that_a_worker_cannot_run_is_made_again_seldom_and_told_once(
    yard: Yard, store: redis.Redis, audited: io.BytesIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "FAILED_PAUSE", 0.5)
    await yard.wait_for_routing(1)
    async with yard.sweeping():
        loop, times = asyncio.get_running_loop(), []
        for _ in range(3):
            await until(has_jobs(store, "deliveries-1-1"))
            times.append(loop.time())
            store.lpop(LIST)
            store.hset("rq:job:deliveries-1-1", "status", "failed")
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.4
    [line] = lines(audited, "queue.job_failed")
    assert line["job"] == "deliveries-1-1"


async def test_one_process_at_a_time_sweeps(yard: Yard, store: redis.Redis) -> None:
    async with yard.sweeping() as first, yard.sweeping() as second:
        duty = await yard.ledger.glance(lambda reader: read_duty(reader, "sweep"))
        while duty is None:
            await asyncio.sleep(0.01)
            duty = await yard.ledger.glance(lambda reader: read_duty(reader, "sweep"))
        owners = {first._owner: second, second._owner: first}
        other = owners[duty.owner]
        assert not await other._has_duty()


async def test_another_process_sweeps_when_the_first_is_gone(
    yard: Yard, store: redis.Redis
) -> None:
    async with yard.sweeping():
        await until(lambda: store.exists("relay:q:mark"))
    await yard.wait_for_routing(1)
    async with yard.sweeping():
        await until(has_jobs(store, "deliveries-1-1"))


async def test_an_emptied_redis_is_told_once_with_its_jobs(
    yard: Yard, store: redis.Redis, audited: io.BytesIO
) -> None:
    await yard.wait_for_routing(2)
    async with yard.sweeping():
        await until(has_jobs(store, "deliveries-1-2"))
        store.flushall()
        await until(lambda: lines(audited, "queue.rebuilt"))
        await until(has_jobs(store, "deliveries-1-2"))
        mark = store.get("relay:q:mark")
        await until(lambda: store.get("relay:q:mark") != mark)
    [line] = lines(audited, "queue.rebuilt")
    assert line["jobs"] == 1


async def test_a_redis_that_was_put_back_is_told(
    yard: Yard, store: redis.Redis, audited: io.BytesIO
) -> None:
    async with yard.sweeping():
        await until(lambda: store.exists("relay:q:mark"))
        store.set("relay:q:mark", int(store.get("relay:q:mark") or 0) - 10_000)
        await until(lambda: lines(audited, "queue.rebuilt"))
    assert [line["jobs"] for line in lines(audited, "queue.rebuilt")] == [0]


async def test_emptied_while_nobody_swept(
    yard: Yard, store: redis.Redis, audited: io.BytesIO
) -> None:
    async with yard.sweeping():
        await until(lambda: store.exists("relay:q:mark"))
    store.flushall()
    async with yard.sweeping():
        await until(lambda: lines(audited, "queue.rebuilt"))
    assert len(lines(audited, "queue.rebuilt")) == 1
