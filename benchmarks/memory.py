"""Memory: bytes that Redis holds for a delivery and a deploy, by what has become of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry

from benchmarks.jobs import until
from benchmarks.lab import Lab
from benchmarks.processes import BenchmarkFailed
from benchmarks.project import HOOK, relay_yaml
from benchmarks.store import QUEUE, Store
from benchmarks.system import System, open_system, working
from benchmarks.tables import Table
from relay.store import connect_async
from workers.history import History, history_key
from workers.standing import standing_key

KINDS = {
    "delivery": ("rq:job:github--*", "rq:results:github--*", "relay:body:*"),
    "deploy": (
        f"rq:job:{HOOK}--*",
        f"rq:results:{HOOK}--*",
        f"relay:attempts:{HOOK}--*",
        "relay:deploy:*",
    ),
}
"""Keys of which each delivery and each deploy has one."""

FINISHED, FAILED, SCHEDULED = (
    registry.key_template.format(QUEUE)
    for registry in (FinishedJobRegistry, FailedJobRegistry, ScheduledJobRegistry)
)
NOTED = (history_key(QUEUE, "delivery"), history_key(QUEUE, "deploy"))
"""The registries, and what stands beside them, have an entry of each."""


class Plan(NamedTuple):
    """How much is measured."""

    deliveries: int = 2_000


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Each state, one after the other."""
    found: dict[str, dict[str, float]] = {}
    with open_system(lab) as system:
        _send(lab, system, plan.deliveries)
        found["waiting"] = _bytes(system.store, plan.deliveries)
        with working(lab, system.project):
            _wait(system.store, FINISHED, 2 * plan.deliveries)
        found["ended well"] = _bytes(system.store, plan.deliveries)
        asyncio.run(_strip(system.store.url))
        found["stripped"] = _bytes(system.store, plan.deliveries)
    with open_system(lab) as system:
        # A hook that the platform does not have: each call is answered 404.
        url = f"http://127.0.0.1:{system.hooks.port}/nothing"
        yaml = relay_yaml({HOOK: url})
        (system.project.folder / "relay.yaml").write_text(yaml, encoding="utf-8")
        _send(lab, system, plan.deliveries)
        with working(lab, system.project):
            _wait(system.store, FAILED, plan.deliveries)
        found["failed"] = _bytes(system.store, plan.deliveries)
    with open_system(lab) as system:
        system.store.client.hset(standing_key(HOOK), "paused", time.time())
        _send(lab, system, plan.deliveries)
        with working(lab, system.project):
            _wait(system.store, SCHEDULED, plan.deliveries)
        found["deploy waits"] = _bytes(system.store, plan.deliveries)
    print(f"\nRedis memory, bytes of each of {plan.deliveries:,} of one deploy, 8 KB")
    table = Table("", *KINDS)
    for state, each in found.items():
        table.row(state, *(f"{each[kind]:,.0f}" if each[kind] else "" for kind in KINDS))
    print(table)
    return {"deliveries": plan.deliveries, **found}


def _send(lab: Lab, system: System, count: int) -> None:
    requests = lab.prepare(8, count, seed=1)
    load = lab.load(system.port, requests, connections=8, seconds=600)
    requests.remove()
    if load.statuses != {202: count}:
        raise BenchmarkFailed(f"answered {load.statuses}")


def _wait(store: Store, registry: str, count: int) -> None:
    if not until(lambda: int(store.client.zcard(registry)) >= count, seconds=120):
        raise BenchmarkFailed("the worker did not run all jobs")


async def _strip(url: str) -> None:
    redis = connect_async(url, timeout=60)
    try:
        await History(redis, QUEUE, most=0).look()
    finally:
        await redis.aclose()


def _bytes(store: Store, count: int) -> dict[str, float]:
    client: Any = store.client
    registries = (FINISHED, FAILED, SCHEDULED)
    entries = sum(client.zcard(key) for key in registries)
    of_entry = _usage(store, [*registries, *NOTED]) / max(entries, 1)
    found = {}
    for kind, patterns in KINDS.items():
        keys = [key for pattern in patterns for key in client.scan_iter(pattern, count=10_000)]
        found[kind] = _usage(store, keys) / count + of_entry if keys else 0
    return found


def _usage(store: Store, keys: list[Any]) -> int:
    with store.client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.memory_usage(key, samples=0)
        return sum(size or 0 for size in pipe.execute())
