"""Jobs that workers run in tests. ``gates`` are opened by the test, ``entered`` by the jobs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from typing import Any

from redis import Redis
from rq import Retry, get_current_job
from rq.job import Job

gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
entered: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
order: list[str] = []


def clear() -> None:
    """Forget the test before."""
    gates.clear()
    entered.clear()
    order.clear()


def current() -> Job:
    job = get_current_job()
    assert job is not None
    return job


async def hold(gate: str = "gate") -> str:
    """Wait at a gate; returns the id of the job."""
    before = current().id
    order.append(before)
    entered[before].set()
    await gates[gate].wait()
    assert current().id == before
    return before


async def meet(count: int) -> int:
    """Return only once ``count`` jobs are in here together."""
    order.append(current().id)
    if len(order) == count:
        gates["all"].set()
    await gates["all"].wait()
    return len(order)


async def note() -> str:
    order.append(current().id)
    return current().id


async def fail() -> None:
    order.append(current().id)
    raise ValueError("as asked")


async def again(runs: int, seconds: int) -> Retry | int:
    """Ask for another run until there were ``runs`` of them."""
    order.append(current().id)
    return len(order) if len(order) >= runs else Retry(max=5, interval=seconds)


async def forever() -> None:
    entered[current().id].set()
    await asyncio.Event().wait()


def plainly(word: str) -> tuple[str, str, bool]:
    job = current()
    return word, job.id, threading.current_thread() is threading.main_thread()


def plainly_forever() -> None:
    while True:
        time.sleep(0.001)


def on_success(job: Job, _: Redis, result: Any) -> None:
    order.append(f"{job.id} gave {result}")
