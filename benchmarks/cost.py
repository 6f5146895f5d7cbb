"""Cost: processor time of the whole system for a delivery that causes one deploy."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.jobs import until
from benchmarks.lab import Lab
from benchmarks.processes import BenchmarkFailed, Clock
from benchmarks.system import open_system, working
from benchmarks.tables import Table, disturbance, times

WARM = 20
CONNECTIONS = 8
JOBS = 2
"""Jobs of a delivery: one that matches it, and one that makes the call."""


def run(lab: Lab, deliveries: int, seconds: float, rounds: int) -> dict[str, Any]:
    """The deliveries, or as many of them as a slow worker manages in so many seconds."""
    found = [_measure(lab, deliveries, seconds) for _ in range(rounds)]
    print(f"\nCost of a delivery with one deploy, 8 KB, in a burst ({times(rounds)})")
    table = Table("", "CPU us")
    parts = ("receiver", "worker", "redis", "whole")
    medians = {part: median(one[part] for one in found) for part in parts}
    for part in parts:
        table.row(part, f"{medians[part]:,.0f}")
    print(table)
    count = median(one["deliveries"] for one in found)
    rate = median(one["deliveries_per_second"] for one in found)
    others = max(one["others_busy"] for one in found)
    print(f"  {count:,.0f} deliveries, {rate:,.0f} a second{disturbance(others)}")
    return {"rounds": found, "medians_us": medians}


def _measure(lab: Lab, deliveries: int, seconds: float) -> dict[str, float]:
    with open_system(lab) as system, working(lab, system.project) as worker:

        def deliver(count: int, seed: int) -> float:
            """Seconds until the last of them is deployed."""
            before = system.jobs.finished()
            requests = lab.prepare(8, count, seed=seed)
            clock = Clock()
            load = lab.load(system.port, requests, connections=CONNECTIONS, seconds=600)
            if load.statuses != {202: count}:
                raise BenchmarkFailed(f"answered {load.statuses}")
            wanted = before + count * JOBS
            if not until(lambda: system.jobs.finished() >= wanted, seconds=120):
                raise BenchmarkFailed("the worker did not run all jobs")
            requests.remove()
            return clock.elapsed()

        pace = WARM / deliver(WARM, seed=1)
        count = max(WARM, min(deliveries, int(pace * seconds)))
        parts = {
            "receiver": system.receiver,
            "worker": worker,
            "redis": system.store.running,
            "hooks": system.hooks.running,
        }
        before = {part: running.cpu() for part, running in parts.items()}
        clock = Clock()
        elapsed = deliver(count, seed=2)
        spent = {part: running.cpu() - before[part] for part, running in parts.items()}
        others = clock.others(sum(spent.values()))
    us = {part: spent[part] / count * 1e6 for part in ("receiver", "worker", "redis")}
    return {
        **us,
        "whole": sum(us.values()),
        "deliveries": count,
        "deliveries_per_second": count / elapsed,
        "others_busy": others,
    }
