"""The worker: jobs a second, memory, and whether one slow target holds up the others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, NamedTuple

from benchmarks.hooks import Hooks
from benchmarks.jobs import Jobs, sha_of, until
from benchmarks.lab import Lab
from benchmarks.processes import Clock, Running
from benchmarks.project import HOOK, Project, relay_yaml
from benchmarks.store import Store
from benchmarks.system import working
from benchmarks.tables import Table, disturbance, percentile, spread, times, with_spread

CALL_MS = 50
HANG_MS = 30_000
HANGING = "hanging"

WAITING = 6_000
"""Jobs queued for a measurement of speed; more than any worker is expected to run in it."""

IN_FLIGHT = 500

PEERS = ("rq worker", "rq, preloaded")
"""rq's own worker as documented, and with the project imported before it forks."""


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int = 3
    seconds: float = 4
    """Of one measurement of speed."""
    paced: int = 200
    """Deploys queued one after the other beside a target that hangs."""


class _Bench(NamedTuple):
    store: Store
    hooks: Hooks
    project: Project
    jobs: Jobs


@contextmanager
def _open(lab: Lab) -> Iterator[_Bench]:
    with ExitStack() as stack:
        folder = lab.new_folder()
        store = Store(folder / "redis", core=lab.cores.others)
        stack.callback(store.stop)
        hooks = Hooks(lab)
        stack.callback(hooks.stop)
        targets = {HOOK: hooks.url(CALL_MS), HANGING: hooks.url(HANG_MS)}
        yield _Bench(store, hooks, Project(folder, store, relay_yaml(targets)), Jobs(store))


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """All three measurements."""
    return {
        "speed": _speeds(lab, plan),
        "memory": _memory(lab),
        "hanging": _hanging(lab, plan),
    }


def _speeds(lab: Lab, plan: Plan) -> dict[str, Any]:
    kinds = ("ours", *PEERS)
    rounds = [{kind: _speed(lab, plan, kind) for kind in kinds} for _ in range(plan.rounds)]
    print(f"\nWorker, deploy hooks that take {CALL_MS} ms ({times(plan.rounds)})")
    table = Table("", "jobs/s", "", "CPU us")
    for kind in kinds:
        of = [measured[kind] for measured in rounds]
        rates = [one["jobs_per_second"] for one in of]
        table.row(
            kind,
            f"{median(rates):,.1f}",
            spread(rates, ",.1f"),
            f"{median(one['cpu_us'] for one in of):,.0f}",
        )
    others = max(one["others_busy"] for measured in rounds for one in measured.values())
    print(f"{table}{disturbance(others)}")
    result: dict[str, Any] = {"rounds": rounds, "ratios": {}}
    for kind in PEERS:
        ratios = [
            measured["ours"]["jobs_per_second"] / measured[kind]["jobs_per_second"]
            for measured in rounds
        ]
        print(f"  ours / {kind}: {with_spread(ratios, '.1f')}")
        result["ratios"][f"ours / {kind}"] = ratios
    return result


def _speed(lab: Lab, plan: Plan, kind: str) -> dict[str, float]:
    """Jobs that end in a while, after the first has ended."""
    with _open(lab) as bench:
        bench.jobs.queue_deploys(HOOK, [f"deploy-{number}" for number in range(WAITING)])
        starts: dict[str, Callable[..., Running]] = {
            "ours": bench.project.worker,
            "rq worker": bench.project.stock_worker,
            "rq, preloaded": bench.project.preloaded_worker,
        }
        worker = starts[kind](core=lab.cores.tested)
        try:
            worker.wait_for(lambda: bench.jobs.finished() > 0, "finish a job")
            first, began = bench.jobs.finished(), time.monotonic()
            clock, cpu = Clock(), worker.cpu()
            redis, hooks = bench.store.running.cpu(), bench.hooks.running.cpu()
            until(lambda: bench.jobs.finished() == WAITING, seconds=plan.seconds, pause=0.05)
            done, elapsed = bench.jobs.finished() - first, time.monotonic() - began
            spent = worker.cpu() - cpu
            known = spent + bench.store.running.cpu() - redis + bench.hooks.running.cpu() - hooks
            others = clock.others(known)
        finally:
            worker.kill()
    return {
        "jobs_per_second": round(done / elapsed, 1),
        "cpu_us": round(spent / max(done, 1) * 1e6),
        "jobs": done,
        "seconds": round(elapsed, 2),
        "others_busy": round(others, 3),
    }


def _memory(lab: Lab) -> dict[str, Any]:
    """Memory of a worker that waits for the answers to many calls."""
    with _open(lab) as bench, working(lab, bench.project, in_flight=IN_FLIGHT) as worker:
        bench.jobs.queue_deploys(HOOK, ["first"])
        worker.wait_for(lambda: bench.jobs.finished() == 1, "finish a job")
        idle = worker.rss()
        bench.jobs.queue_deploys(HANGING, [f"slow-{number}" for number in range(IN_FLIGHT)])
        until(lambda: bench.hooks.state().now == IN_FLIGHT, seconds=HANG_MS / 3000, pause=0.1)
        reached, full = bench.hooks.state().now, worker.rss()
    mib = 1024 * 1024
    print(
        f"\nWorker, memory: {full / mib:.1f} MiB with {reached} calls in flight, "
        f"{idle / mib:.1f} idle"
    )
    return {"in_flight": reached, "rss": full, "rss_idle": idle}


def _hanging(lab: Lab, plan: Plan) -> dict[str, Any]:
    """How long deploys wait for their call, with and without a target that hangs."""
    print(f"\nWorker, from queued to called, one every {CALL_MS} ms ({plan.paced} deploys)")
    table = Table("", "p50 ms", "p99 ms", "max ms", "not called")
    found = {}
    for label, hanging in (("alone", 0), (f"beside a target that hangs {HANG_MS // 1000} s", 20)):
        waits, missing = _waits(lab, plan.paced, hanging)
        shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
        # Those that were never called waited longer than all others.
        waits += [math.inf] * missing
        figures = {key: percentile(waits, share) * 1000 for key, share in shares.items()}
        cells = (f"{figure:,.1f}" if figure < math.inf else "" for figure in figures.values())
        table.row(label, *cells, str(missing or ""))
        found["beside" if hanging else "alone"] = {
            **{key: figure if figure < math.inf else None for key, figure in figures.items()},
            "not_called": missing,
        }
    print(table)
    return found


def _waits(lab: Lab, paced: int, hanging: int) -> tuple[list[float], int]:
    with _open(lab) as bench, working(lab, bench.project) as worker:
        bench.jobs.queue_deploys(HOOK, ["first"])
        worker.wait_for(lambda: bench.jobs.finished() == 1, "finish a job")
        if hanging:
            bench.jobs.queue_deploys(HANGING, [f"slow-{number}" for number in range(hanging)])
            until(lambda: bench.hooks.state().now > 0)
        queued = {}
        due = time.monotonic()
        for number in range(paced):
            name = f"deploy-{number}"
            queued[sha_of(name)] = time.monotonic()
            bench.jobs.queue_deploys(HOOK, [name])
            due += CALL_MS / 1000
            time.sleep(max(0.0, due - time.monotonic()))
        wanted = queued.keys()
        until(lambda: wanted <= bench.hooks.called().keys(), seconds=5, pause=0.25)
        called = bench.hooks.called()
    waits = [called[sha] - at for sha, at in queued.items() if sha in called]
    return waits, paced - len(waits)
