"""Cost: processor time of the whole system for a delivery that causes one deploy."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.lab import Lab
from benchmarks.processes import BenchmarkFailed, Clock, until
from benchmarks.system import open_system, working
from benchmarks.tables import Table, disturbance, times, with_spread
from benchmarks.tree import OURS, Tree, before

WARM = 20

PARTS = ("receiver", "worker", "redis", "whole")


def run(lab: Lab, deliveries: int, rounds: int) -> dict[str, Any]:
    """So many deliveries in a burst, of the commit before in turn where there is one."""
    trees = [tree for tree in (OURS, before()) if tree is not None]
    measured = [
        {tree.name: _measure(lab, deliveries, tree) for tree in trees} for _ in range(rounds)
    ]
    print(f"\nCost of a delivery with one deploy, 8 KB, in a burst ({times(rounds)})")
    table = Table("CPU us", *(tree.name for tree in trees))
    medians = {
        tree.name: {part: median(one[tree.name][part] for one in measured) for part in PARTS}
        for tree in trees
    }
    for part in PARTS:
        table.row(part, *(f"{medians[tree.name][part]:,.0f}" for tree in trees))
    print(table)
    others = max(one["others_busy"] for each in measured for one in each.values())
    rate = median(one["ours"]["deliveries_per_second"] for one in measured)
    print(f"  {deliveries:,} deliveries, {rate:,.0f} a second{disturbance(others)}")
    result: dict[str, Any] = {"rounds": measured, "medians_us": medians, "ratios": {}}
    if len(trees) > 1:
        for part in PARTS:
            ratios = [one["ours"][part] / one["before"][part] for one in measured]
            result["ratios"][part] = ratios
            print(f"  {part}, ours / before: {with_spread(ratios, '.2f')}")
    return result


def _measure(lab: Lab, deliveries: int, tree: Tree) -> dict[str, float]:
    with open_system(lab, tree=tree) as system, working(lab, system.project) as worker:

        def deliver(count: int, sum_of_all: int, seed: int) -> float:
            """Seconds until the last of them is deployed."""
            requests = lab.prepare(8, count, seed=seed)
            clock = Clock()
            system.send(lab, requests, count)
            if not until(lambda: system.counts.are_deployed(sum_of_all), seconds=120, pause=0.05):
                raise BenchmarkFailed("the worker did not make all deploys")
            requests.remove()
            return clock.elapsed()

        deliver(WARM, WARM, seed=1)
        parts = {
            "receiver": system.receiver,
            "worker": worker,
            "redis": system.store.running,
            "hooks": system.hooks.running,
        }
        at_first = {part: running.cpu() for part, running in parts.items()}
        clock = Clock()
        elapsed = deliver(deliveries, WARM + deliveries, seed=2)
        spent = {part: running.cpu() - at_first[part] for part, running in parts.items()}
        others = clock.others(sum(spent.values()))
    us = {part: spent[part] / deliveries * 1e6 for part in ("receiver", "worker", "redis")}
    return {
        **us,
        "whole": sum(us.values()),
        "deliveries": deliveries,
        "deliveries_per_second": deliveries / elapsed,
        "others_busy": others,
    }
