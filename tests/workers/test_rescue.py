"""Which runs count as abandoned, whatever the clock does; and that no other is touched."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from rq import Retry, utils
from rq.job import JobStatus

from relay.store import connect_async
from tests.harness import until
from tests.workers import jobs
from tests.workers.crew import Crew
from workers import rescue as rescue_module
from workers.along import Along
from workers.bookkeeping import Books
from workers.rescue import LONGEST_LEASE, LONGEST_SILENCE, Rescue, Watch
from workers.upkeep import Tempo
from workers.worker import RelayWorker
from workers.writing import Writer

HOUR = 3600
SILENCE = 7.5
DEAF = Tempo(heartbeat=600, maintenance=600, schedule=0.1)


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(0, 3)), min_size=1))
def test_silence_is_the_time_since_a_run_became_due_when_it_is(
    looks: list[tuple[float, int]],
) -> None:
    watch, at, since, last = Watch(), 0.0, 0.0, None
    for pause, due in looks:
        at += pause
        if due != last:
            since, last = at, due
        assert watch.silence({"run": due}, at) == {"run": at - since}
    assert watch.silence({}, at) == {}
    assert watch.silence({"run": looks[-1][1]}, at + 1) == {"run": 0}


class Clocks:
    """The clock by which RQ notes when a heartbeat is due, and the one that never jumps."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.shift = self.passed = 0.0
        monotonic = time.monotonic
        patch.setattr(utils, "now", lambda: datetime.now(UTC) + timedelta(seconds=self.shift))
        patch.setattr(rescue_module, "time", self)
        self.monotonic: Callable[[], float] = lambda: monotonic() + self.passed


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def looking_after(crew: Crew, worker: RelayWorker, client: Redis) -> Rescue:
    writer = Writer(worker, crew.queue, client)
    books = Books(worker, crew.queue, writer=writer, answered=set(), along=Along())
    return Rescue(worker, crew.queue, books, client, silence=SILENCE)


async def held(crew: Crew, tempo: Tempo) -> tuple[RelayWorker, Any]:
    """A worker and a job that it runs."""
    worker = crew.start(tempo=tempo)
    job = crew.add(jobs.hold, retry=Retry(max=1, interval=600))
    await jobs.entered[job.id].wait()
    return worker, job


def due(store: redis.Redis, crew: Crew) -> Any:
    """The one run, and when its next heartbeat is due."""
    return store.zrange(crew.queue.started_job_registry.key, 0, -1, withscores=True)


def heard(store: redis.Redis, crew: Crew, before: Any) -> bool:
    return bool(due(store, crew) != before)


async def test_clock_that_jumps_makes_no_run_look_abandoned(
    crew: Crew, store: redis.Redis, server_socket: Path, clocks: Clocks, audited: io.BytesIO
) -> None:
    worker, job = await held(crew, Tempo(heartbeat=0.1, maintenance=600, schedule=0.1))
    async with connect_async(f"unix://{server_socket}", timeout=2) as client:
        rescue = looking_after(crew, worker, client)
        await rescue.look()
        for shift in (HOUR, -HOUR, 0):
            before = due(store, crew)
            clocks.shift = shift
            # At once, before a heartbeat by the new clock, and after one, when time has passed.
            await rescue.look()
            await until(partial(heard, store, crew, before))
            clocks.passed += 10 * SILENCE
            await rescue.look()

    assert job.get_status() == JobStatus.STARTED
    assert b"abandoned" not in audited.getvalue()


@pytest.mark.parametrize("shift", [0, HOUR, -HOUR])
async def test_silent_run_is_found_whatever_the_clock_says(
    crew: Crew,
    server_socket: Path,
    clocks: Clocks,
    audited: io.BytesIO,
    shift: float,
) -> None:
    worker, job = await held(crew, DEAF)
    async with connect_async(f"unix://{server_socket}", timeout=2) as client:
        rescue = looking_after(crew, worker, client)
        await rescue.look()
        # By a clock that was not moved it is overdue after its lease.
        clocks.shift = shift or DEAF.lease + 1
        clocks.passed += (LONGEST_SILENCE if shift < 0 else SILENCE) - 0.5
        await rescue.look()
        assert job.get_status() == JobStatus.STARTED
        clocks.passed += 0.5

        await rescue.look()

    assert job.get_status() == JobStatus.SCHEDULED
    assert audited.getvalue().count(b"job.abandoned") == 1


async def test_run_under_a_worker_without_heartbeats_is_left_alone(
    crew: Crew, server_socket: Path, clocks: Clocks
) -> None:
    worker, job = await held(crew, DEAF)
    async with connect_async(f"unix://{server_socket}", timeout=2) as client:
        rescue = looking_after(crew, worker, client)
        await rescue.look()
        clocks.passed += 10 * LONGEST_SILENCE
        # It is due later than now, but not later than its job's timeout explains.
        clocks.shift = -LONGEST_LEASE

        await rescue.look()

    assert job.get_status() == JobStatus.STARTED
