"""Lists, searches and the overview: how long operators wait for them where much stands in Redis,
and how long others wait for Redis and for the console meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

from benchmarks.lab import Lab
from benchmarks.processes import pinned
from benchmarks.store import QUEUE, Store
from benchmarks.tables import Table, with_spread
from config.patterns import PatternSet
from relay.archive import Archive
from relay.events.event import Delivery, Person, Push
from relay.filtering import Filter
from relay.finding import SECONDS
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

TICK = 0.001
"""Seconds between two looks at whether the event loop is late."""

_LIFETIMES = Lifetimes(timeout=60, result=3_600, failure=3_600)


class Plan(NamedTuple):
    """How much stands in Redis: so many deliveries in the queue, as many deploys that wait for
    their time, and a fifth of it that failed."""

    jobs: int = 100_000
    rounds: int = 5


class Look(NamedTuple):
    """How long one look took, and in milliseconds how long others waited for Redis, and for the
    event loop."""

    seconds: float
    script: float
    late: float


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Each look, several times."""
    store = Store(lab.new_folder() / "redis", core=lab.cores.others)
    try:
        _fill(store, plan.jobs)
        with pinned(lab.cores.tested):
            seen = asyncio.run(_measure(store.url, plan.rounds))
    finally:
        store.stop()
    print(f"\nLists with {plan.jobs:,} deliveries, as many deploys, {plan.jobs // 5:,} failed")
    table = Table("look", "seconds", "script, ms", "late, ms")
    for name, looks in seen.items():
        table.row(
            name,
            with_spread([look.seconds for look in looks], ".2f"),
            f"{max(look.script for look in looks):.1f}",
            f"{max(look.late for look in looks):.1f}",
        )
    print(table)
    print("  script: the longest call of one; late: the longest pause of the event loop")
    return {"jobs": plan.jobs, **{name: list(map(Look._asdict, seen[name])) for name in seen}}


def _searches() -> dict[str, tuple[Kind, Filter]]:
    """Lists as pages ask for them; nothing is like what is looked for."""
    nothing = PatternSet(("acme/nothing",), "path", ignore_case=True)
    filters = {
        "all": Filter(),
        "a repository": Filter(repos=nothing),
        "a glob of repositories": Filter(repos=PatternSet(("*/nothing*",), "path")),
        "a commit": Filter(sha="f" * 7),
        "a branch": Filter(branches=PatternSet(("nothing",), "path")),
        "branches by a set": Filter(branches=PatternSet(("[n]othing",), "path")),
        "an author": Filter(author="nobody"),
    }
    of_deploys = {
        "a route": Filter(routes=frozenset({"nothing"})),
        "a target": Filter(names=frozenset({"nothing"})),
        "failed": Filter(frozenset({"failed"})),
        "held": Filter(frozenset({"held"})),
    }
    return {
        **{f"deliveries: {name}": ("delivery", one) for name, one in filters.items()},
        **{f"deploys: {name}": ("deploy", one) for name, one in {**filters, **of_deploys}.items()},
    }


async def _measure(url: str, rounds: int) -> dict[str, list[Look]]:
    redis = connect_async(url, timeout=60)
    archive = Archive(redis, QUEUE)

    async def listed(kind: Kind, wanted: Filter) -> None:
        found = await archive.find(kind, wanted, SHOWN, seconds=SECONDS)
        await archive.read(kind, found.ids)

    looks: dict[str, Callable[[], Awaitable[Any]]] = {
        name: partial(listed, kind, wanted) for name, (kind, wanted) in _searches().items()
    }
    looks["overview"] = lambda: read_overview(redis, QUEUE, list)
    await redis.config_set("slowlog-log-slower-than", 100)
    try:
        return {
            name: [await _looked(redis, look) for _ in range(rounds)]
            for name, look in looks.items()
        }
    finally:
        await redis.aclose()


async def _looked(redis: Redis, look: Callable[[], Awaitable[Any]]) -> Look:
    await redis.slowlog_reset()
    late = [0.0]
    watching = asyncio.create_task(_watch(late))
    began = time.perf_counter()
    await look()
    seconds = time.perf_counter() - began
    watching.cancel()
    slow: Any = await redis.slowlog_get(128)
    return Look(seconds, max((one["duration"] for one in slow), default=0) / 1e3, late[0])


async def _watch(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK)
        late[0] = max(late[0], (time.perf_counter() - began - TICK) * 1e3)


def _fill(store: Store, jobs: int) -> None:
    scheduled = ScheduledJobRegistry.key_template.format(QUEUE)
    failed = FailedJobRegistry.key_template.format(QUEUE)
    for start in range(0, jobs, 1_000):
        with store.client.pipeline(transaction=False) as pipe:
            for number in range(start, min(jobs, start + 1_000)):
                event = Push(
                    f"acme/web-{number % 200}",
                    f"refs/heads/feature/{number % 500}",
                    "1" * 40,
                    f"{number:08x}" * 5,
                    message="Have the button say what it does when it is pressed",
                    author=Person(f"Dev {number % 50}", f"dev{number % 50}@example.org"),
                )
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
