"""Lists and the overview: how long operators wait for them where much stands in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

from benchmarks.lab import Lab
from benchmarks.processes import pinned
from benchmarks.store import QUEUE, Store
from benchmarks.tables import Table, with_spread
from config.patterns import PatternSet
from relay.archive import Archive
from relay.events import Delivery, Push
from relay.filtering import Filter
from relay.overview import read_overview
from relay.records import (
    DELIVERY_JOB,
    DEPLOY_JOB,
    JOB_PREFIX,
    QUEUE_PREFIX,
    Lifetimes,
    job_fields,
)
from relay.statuses import Kind
from relay.store import connect_async
from workers.deploys import Deploy

SHOWN = 50

_LIFETIMES = Lifetimes(timeout=60, result=3_600, failure=3_600)


class Plan(NamedTuple):
    """How much stands in Redis: so many deliveries in the queue, as many deploys that wait for
    their time, and a fifth of it that failed."""

    jobs: int = 100_000
    rounds: int = 5


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Each look, several times."""
    store = Store(lab.new_folder() / "redis", core=lab.cores.others)
    try:
        _fill(store, plan.jobs)
        with pinned(lab.cores.tested):
            seconds = asyncio.run(_measure(store.url, plan.rounds))
    finally:
        store.stop()
    print(f"\nLists with {plan.jobs:,} deliveries, as many deploys, {plan.jobs // 5:,} failed")
    table = Table("look", "seconds")
    for name, values in seconds.items():
        table.row(name, with_spread(values, ".2f"))
    print(table)
    return {"jobs": plan.jobs, **seconds}


async def _measure(url: str, rounds: int) -> dict[str, list[float]]:
    redis = connect_async(url, timeout=60)
    archive = Archive(redis, QUEUE)
    nothing = Filter(repos=PatternSet(("acme/nothing",), "path"))

    async def listed(kind: Kind, wanted: Filter) -> None:
        found = await archive.find(kind, wanted, SHOWN)
        await archive.read(kind, found.ids)

    looks: dict[str, Callable[[], Awaitable[Any]]] = {
        "deploys": lambda: listed("deploy", Filter()),
        "deliveries": lambda: listed("delivery", Filter()),
        "deploys that failed": lambda: listed("deploy", Filter(frozenset({"failed"}))),
        "deploys of a repository that has none": lambda: listed("deploy", nothing),
        "overview": lambda: read_overview(redis, QUEUE, list),
    }
    try:
        return {name: [await _timed(look) for _ in range(rounds)] for name, look in looks.items()}
    finally:
        await redis.aclose()


async def _timed(look: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await look()
    return time.perf_counter() - began


def _fill(store: Store, jobs: int) -> None:
    scheduled = ScheduledJobRegistry.key_template.format(QUEUE)
    failed = FailedJobRegistry.key_template.format(QUEUE)
    for start in range(0, jobs, 1_000):
        with store.client.pipeline(transaction=False) as pipe:
            for number in range(start, min(jobs, start + 1_000)):
                event = Push("acme/web", "refs/heads/main", "1" * 40, f"{number:040x}")
                delivery = Delivery(f"github--{number}", "github", 1.0, event)
                _job(pipe, delivery.id, DELIVERY_JOB, delivery, "delivery: push", JobStatus.QUEUED)
                pipe.rpush(QUEUE_PREFIX + QUEUE, delivery.id)
                deploy = Deploy(delivery.id, "github", "web", "production", event)
                name = f"production--{number:024x}"
                is_failed = number % 5 == 0
                status = JobStatus.FAILED if is_failed else JobStatus.SCHEDULED
                _job(pipe, name, DEPLOY_JOB, deploy, "deploy: production", status)
                pipe.zadd(failed if is_failed else scheduled, {name: 4e9 + number})
            pipe.execute()


def _job(pipe: Any, id_: str, function: str, argument: Any, what: str, status: JobStatus) -> None:
    event = argument.event
    fields = job_fields(
        function,
        msgspec.json.encode(argument).decode(),
        queue=QUEUE,
        description=f"{what} {event.repo}@{event.sha[:12]}",
        lifetimes=_LIFETIMES,
        status=status,
    )
    pipe.hset(JOB_PREFIX + id_, items=fields)
