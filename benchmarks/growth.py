"""Growth: what many routes and many waiting deliveries cost."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, NamedTuple

from benchmarks.counts import LedgerCounts
from benchmarks.lab import Lab, Requests
from benchmarks.processes import BenchmarkFailed, pinned, until
from benchmarks.project import Project, relay_yaml
from benchmarks.store import Store
from benchmarks.system import System, open_system, working
from benchmarks.tables import Table, with_spread
from config.loading import load
from relay.events.event import Push
from relay.routing import Router

MIB = 1024 * 1024


class Plan(NamedTuple):
    """How much is measured."""

    routes: int = 10_000
    repositories: int = 2_000
    waiting: int = 100_000
    rounds: int = 3
    seconds: float = 2
    """Of one measurement of the receiver's rate."""
    drain: float = 25
    """Seconds that a worker is watched for while it drains the queue."""


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Routes, then deliveries."""
    print(f"\nGrowth: {plan.routes:,} routes over {plan.repositories:,} repositories")
    result: dict[str, Any] = {"matching": _matching(lab, plan), "start": _start(lab, plan)}
    print(f"\nGrowth: {plan.waiting:,} deliveries waiting, 8 KB")
    return result | _waiting(lab, plan)


def _matching(lab: Lab, plan: Plan) -> dict[str, Any]:
    # As many routes for each repository, so that only the size of the file differs.
    few = _router(lab, 10, max(1, 10 * plan.repositories // plan.routes))
    many = _router(lab, plan.routes, plan.repositories)
    with pinned(lab.cores.tested):
        rounds = [
            (_match(few, plan.repositories), _match(many, plan.repositories))
            for _ in range(plan.rounds)
        ]
    of_few, of_many = (median(values) for values in zip(*rounds, strict=True))
    print(
        f"  matching an event: {of_many:.2f} us, against {of_few:.2f} us with 10 routes: "
        f"{of_many / of_few:.2f} times"
    )
    return {"many_us": of_many, "ten_us": of_few, "rounds": rounds}


class _Routes(NamedTuple):
    router: Router
    repositories: int


def _router(lab: Lab, routes: int, repositories: int) -> _Routes:
    file = lab.new_folder() / "relay.yaml"
    file.write_text(relay_yaml(routes=routes, repositories=repositories), encoding="utf-8")
    return _Routes(Router(load(file, secrets_of=()).config.routes), repositories)


def _match(router: _Routes, pushes: int, count: int = 20_000) -> float:
    """Microseconds to judge a push; as many ``pushes``, in turn, go over all repositories."""
    events = [
        Push(
            repo=f"acme/service-{number % router.repositories}",
            ref="refs/heads/main",
            before="1" * 40,
            after="2" * 40,
            files=("apps/web/src/index.ts",),
        )
        for number in range(pushes)
    ]
    began = time.perf_counter()
    for number in range(count):
        if not router.router.candidates(events[number % pushes], "github"):
            raise BenchmarkFailed("a push was not matched")
    return (time.perf_counter() - began) / count * 1e6


def _start(lab: Lab, plan: Plan) -> dict[str, Any]:
    found: dict[str, list[float]] = {"many": [], "ten": []}
    for _ in range(plan.rounds):
        for name, routes, repositories in (
            ("ten", 10, 10),
            ("many", plan.routes, plan.repositories),
        ):
            folder = lab.new_folder()
            store = Store(folder / "redis", core=lab.cores.others)
            yaml = relay_yaml(routes=routes, repositories=repositories)
            began = time.monotonic()
            receiver, _ = Project(folder, store, yaml).serve(core=lab.cores.tested)
            found[name].append(time.monotonic() - began)
            receiver.stop()
            store.stop()
    print(
        f"  start until it listens: {median(found['many']):.2f} s, "
        f"against {median(found['ten']):.2f} s with 10 routes"
    )
    return found


def _waiting(lab: Lab, plan: Plan) -> dict[str, Any]:
    result: dict[str, Any] = {}
    many = lab.prepare(8, plan.waiting, seed=1)
    with open_system(lab) as full, open_system(lab) as empty:
        memory, size = full.store.memory(), _bytes(full)
        full.send(lab, many, plan.waiting, connections=32)
        many.remove()
        if full.counts.waiting() != plan.waiting:
            raise BenchmarkFailed(f"{full.counts.waiting()} of {plan.waiting} wait")
        result["ledger_bytes_each"] = (_bytes(full) - size) / plan.waiting
        result["redis_bytes_each"] = (full.store.memory() - memory) / plan.waiting
        print(
            f"  bytes of a waiting delivery: {result['ledger_bytes_each']:,.0f} in the ledger, "
            f"{result['redis_bytes_each']:,.0f} in Redis"
        )
        result["rates"] = _rates(lab, plan, full, empty)
        result["drain"] = _drain(lab, plan, full)
    return result


def _bytes(system: System) -> int:
    counts = system.counts
    if not isinstance(counts, LedgerCounts):
        raise TypeError("only a ledger has a size")
    return counts.bytes()


def _rates(lab: Lab, plan: Plan, full: System, empty: System) -> list[tuple[float, float]]:
    """Requests a second with all of them waiting, and with few, in turns."""

    def rate(system: System, requests: Requests) -> float:
        loaded = lab.load(system.port, requests, connections=32, seconds=plan.seconds, warm=500)
        if loaded.statuses != {202: loaded.answered}:
            raise BenchmarkFailed(f"answered {loaded.statuses}")
        return loaded.rps

    found = []
    for number in range(plan.rounds):
        requests = lab.prepare(8, int(17_000 * plan.seconds), seed=100 + number)
        found.append((rate(full, requests), rate(empty, requests)))
        requests.remove()
    shares = [with_many / without for with_many, without in found]
    print(
        f"  receiver's rate: {median(one for one, _ in found):,.0f}/s, "
        f"of that with an empty queue: {with_spread(shares, '.2f')}"
    )
    return found


def _drain(lab: Lab, plan: Plan, full: System) -> dict[str, Any]:
    """Memory of a worker that works the queue off."""
    samples: list[tuple[float, int, int]] = []
    waiting = full.counts.waiting()
    with working(lab, full.project) as worker:
        began = time.monotonic()

        def sample() -> bool:
            calls = full.hooks.state().calls
            samples.append((round(time.monotonic() - began, 2), calls, worker.rss()))
            return calls >= waiting

        until(sample, seconds=plan.drain, pause=0.5)
    # The first samples are those of a worker that has not imported everything yet.
    later = samples[len(samples) // 5 :]
    seconds, finished, rss = later[-1]
    began_with = later[0][2]
    table = Table("worker, after s", "deploys", "RSS MiB")
    for at in sorted({0, len(later) // 4, len(later) // 2, 3 * len(later) // 4, len(later) - 1}):
        table.row(f"{later[at][0]:.0f}", f"{later[at][1]:,}", f"{later[at][2] / MIB:.1f}")
    print(table)
    print(
        f"  {finished:,} of {waiting:,} deploys in {seconds:.0f} s; "
        f"memory grew by {(rss - began_with) / MIB:.1f} MiB"
    )
    return {"samples": samples, "deliveries": waiting, "growth": rss - began_with}
