"""Wake-ups are RQ jobs that rq reads, and nobody waits for them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from relay.queue.rq_job import Wakeup, read_job_id
from relay.queue.wakeups import MOST_WAITING, Wakeups
from tests.harness import PATIENCE, until


@pytest.fixture
async def wakeups(store: redis.Redis, server_socket: Path) -> AsyncIterator[Wakeups]:
    made = Wakeups(f"unix://{server_socket}", "q")
    made.start()
    yield made
    await made.stop()


def length_is(store: redis.Redis, length: int) -> Callable[[], bool]:
    return lambda: store.llen("rq:queue:q") == length


async def test_jobs_are_read_by_rq(wakeups: Wakeups, store: redis.Redis) -> None:
    wakeups.wake_deliveries(3, 9)
    wakeups.wake_deploys([4, 5, 4])
    wakeups.wake_notices([6])
    await until(length_is(store, 4))

    queue = Queue("q", connection=store, serializer=JSONSerializer)
    assert queue in Queue.all(connection=store)
    jobs = [Job.fetch(one, store, serializer=JSONSerializer) for one in queue.job_ids]
    assert [(job.id, job.func_name, job.args) for job in jobs] == [
        ("deliveries-3-9", "workers.jobs.deliver", [3, 9]),
        ("deploy-4", "workers.jobs.deploy", [4]),
        ("deploy-5", "workers.jobs.deploy", [5]),
        ("notice-6", "workers.jobs.notify", [6]),
    ]
    assert {job.get_status() for job in jobs} == {"queued"}
    assert all(job.origin == "q" and job.created_at and job.enqueued_at for job in jobs)
    assert store.ttl("rq:job:deploy-4") > 0


async def test_rq_info_shows_them(
    wakeups: Wakeups, store: redis.Redis, server_socket: Path
) -> None:
    wakeups.wake_deploys([1, 2])
    await until(length_is(store, 2))
    rq = [sys.executable, "-m", "rq.cli", "info", "--raw", "-u", f"unix://{server_socket}"]
    process = await asyncio.create_subprocess_exec(*rq, stdout=asyncio.subprocess.PIPE)
    told, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert "queue q 2" in told.decode()


async def test_nobody_waits_for_a_redis_that_is_away(store: redis.Redis, tmp_path: Path) -> None:
    wakeups = Wakeups(f"unix://{tmp_path}/nobody.sock", "q")
    wakeups.start()
    began = time.monotonic()
    for number in range(MOST_WAITING + 5):
        wakeups.wake_deploys([number + 1])
    assert time.monotonic() - began < 5
    await until(lambda: bool(wakeups.away))
    assert wakeups.away == "Redis takes no jobs (ConnectionError)"
    await wakeups.stop()


async def test_what_redis_did_not_take_is_forgotten(wakeups: Wakeups, store: redis.Redis) -> None:
    store.set("rq:queue:q", "not a list")
    wakeups.wake_deploys([1])
    await until(lambda: bool(wakeups.away))
    assert wakeups.away == "Redis takes no jobs (WRONGTYPE)"
    store.delete("rq:queue:q")
    wakeups.wake_deploys([2])
    await until(length_is(store, 1))
    assert store.lrange("rq:queue:q", 0, -1) == [b"deploy-2"]
    assert wakeups.away == ""


async def test_the_last_wakeups_are_written_at_the_end(
    store: redis.Redis, server_socket: Path
) -> None:
    wakeups = Wakeups(f"unix://{server_socket}", "q")
    wakeups.start()
    wakeups.wake_deploys(range(1, 600))
    await wakeups.stop()
    assert store.llen("rq:queue:q") == 599


@pytest.mark.parametrize(
    ("text", "wakeup"),
    [
        ("deliveries-3-9", Wakeup("deliveries", 3, 9)),
        ("deploy-4", Wakeup("deploy", 4, 4)),
        ("notice-4", Wakeup("notice", 4, 4)),
        ("deploy-4-5", None),
        ("deliveries-3", None),
        ("deploy-0", None),
        ("github--1", None),
    ],
)
def test_ids_of_jobs(text: str, wakeup: Wakeup | None) -> None:
    assert read_job_id(text) == wakeup
    assert wakeup is None or wakeup.id == text
