"""The worker: deploys a second, memory, and whether one slow target holds up the others."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

from benchmarks.lab import HOOK as PATH
from benchmarks.lab import Lab
from benchmarks.payloads import Pushes, signed
from benchmarks.processes import BenchmarkFailed, Clock, Running, until
from benchmarks.project import SLOW_REPO
from benchmarks.system import System, open_system, working
from benchmarks.tables import Table, disturbance, percentile, spread, times, with_spread
from benchmarks.tree import OURS, Tree, before

CALL_MS = 50
HANG_MS = 30_000

FEW = 10
"""Deliveries that a worker gets which forks for each job."""

IN_FLIGHT = 500

PEERS = ("rq worker", "rq, preloaded")
"""rq's own worker as documented, and with the project imported before it forks."""

HANGING = 20
"""Calls that hang."""


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int = 3
    deliveries: int = 4_000
    """Of one measurement of speed; each causes one deploy."""
    paced: int = 200
    """Deploys one after the other beside a target that hangs."""


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """All three measurements."""
    return {
        "speed": _speeds(lab, plan),
        "memory": _memory(lab),
        "hanging": _hanging(lab, plan),
    }


def _speeds(lab: Lab, plan: Plan) -> dict[str, Any]:
    former = before()
    kinds = ["ours", *([former.name] if former else []), *PEERS]
    rounds = [{kind: _speed(lab, plan, kind, former) for kind in kinds} for _ in range(plan.rounds)]
    print(f"\nWorker, deploy hooks that take {CALL_MS} ms ({times(plan.rounds)})")
    table = Table("", "deploys/s", "", "CPU us")
    for kind in kinds:
        of = [measured[kind] for measured in rounds]
        rates = [one["deploys_per_second"] for one in of]
        table.row(
            kind,
            f"{median(rates):,.1f}",
            spread(rates, ",.1f"),
            f"{median(one['cpu_us'] for one in of):,.0f}",
        )
    others = max(one["others_busy"] for measured in rounds for one in measured.values())
    print(f"{table}{disturbance(others)}")
    result: dict[str, Any] = {"rounds": rounds, "ratios": {}}
    for kind in kinds[1:]:
        for what in ("deploys_per_second", "cpu_us"):
            ratios = [measured["ours"][what] / measured[kind][what] for measured in rounds]
            print(f"  {what}, ours / {kind}: {with_spread(ratios, '.2f')}")
            result["ratios"][f"{what}, ours / {kind}"] = ratios
    return result


def _speed(lab: Lab, plan: Plan, kind: str, former: Tree | None) -> dict[str, float]:
    """All deliveries wait when the worker begins to route them and to make their calls."""
    tree = former if former is not None and kind == former.name else OURS
    count = FEW if kind in PEERS else plan.deliveries
    with open_system(lab, milliseconds=CALL_MS, tree=tree) as system:
        # On one branch there is one call at a time.
        requests = lab.prepare(8, count, branches=count)
        system.send(lab, requests, count)
        requests.remove()
        system.receiver.stop()
        starts: dict[str, Callable[..., Running]] = {
            "rq worker": system.project.stock_worker,
            "rq, preloaded": system.project.preloaded_worker,
        }
        worker = starts.get(kind, system.project.worker)(core=lab.cores.tested)
        try:
            if kind in PEERS:
                # They do not say when they have started.
                worker.wait_for(lambda: system.hooks.state().calls > 0, "make a call")
            return _until_deployed(system, worker, count)
        finally:
            worker.kill()


def _until_deployed(system: System, worker: Running, count: int) -> dict[str, float]:
    done, began = system.hooks.state().calls, time.monotonic()
    clock, cpu = Clock(), worker.cpu()
    redis, hooks = system.store.running.cpu(), system.hooks.running.cpu()
    if not until(lambda: system.counts.are_deployed(count), seconds=120, pause=0.05):
        raise BenchmarkFailed(f"the worker did not make all deploys:\n{worker.tail()}")
    elapsed, spent = time.monotonic() - began, worker.cpu() - cpu
    besides = system.store.running.cpu() - redis + system.hooks.running.cpu() - hooks
    # At the start a worker that was just started may have made some.
    done = count - done if done < count else count
    return {
        "deploys_per_second": round(done / elapsed, 1),
        "cpu_us": round(spent / done * 1e6),
        "deploys": done,
        "seconds": round(elapsed, 2),
        "others_busy": round(clock.others(spent + besides), 3),
    }


def _memory(lab: Lab) -> dict[str, Any]:
    """Memory of a worker that waits for the answers to many calls."""
    with (
        open_system(lab, slow=HANG_MS) as system,
        working(lab, system.project, in_flight=IN_FLIGHT) as worker,
    ):
        _send(lab, system, 1)
        until(lambda: system.counts.are_deployed(1))
        idle = worker.rss()
        _send(lab, system, IN_FLIGHT, repo=SLOW_REPO)
        until(lambda: system.hooks.state().now == IN_FLIGHT, seconds=HANG_MS / 3000, pause=0.1)
        reached, full = system.hooks.state().now, worker.rss()
    mib = 1024 * 1024
    print(
        f"\nWorker, memory: {full / mib:.1f} MiB with {reached} calls in flight, "
        f"{idle / mib:.1f} idle"
    )
    return {"in_flight": reached, "rss": full, "rss_idle": idle}


def _send(lab: Lab, system: System, count: int, repo: str = "acme/web") -> None:
    requests = lab.prepare(8, count, repo=repo)
    system.send(lab, requests, count)
    requests.remove()


def _hanging(lab: Lab, plan: Plan) -> dict[str, Any]:
    """How long deploys wait for their call, with and without a target that hangs."""
    print(f"\nWorker, from answered to called, one every {CALL_MS} ms ({plan.paced} deploys)")
    table = Table("", "p50 ms", "p99 ms", "max ms", "not called")
    result = {}
    for label, hanging in (
        ("alone", 0),
        (f"beside a target that hangs {HANG_MS // 1000} s", HANGING),
    ):
        waits, missing = _waits(lab, plan.paced, hanging)
        shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
        # Those that were never called waited longer than all others.
        waits += [math.inf] * missing
        figures = {key: percentile(waits, share) * 1000 for key, share in shares.items()}
        cells = (f"{figure:,.1f}" if figure < math.inf else "" for figure in figures.values())
        table.row(label, *cells, str(missing or ""))
        result["beside" if hanging else "alone"] = {
            **{key: figure if figure < math.inf else None for key, figure in figures.items()},
            "not_called": missing,
        }
    print(table)
    return result


def _waits(lab: Lab, paced: int, hanging: int) -> tuple[list[float], int]:
    with open_system(lab, slow=HANG_MS) as system, working(lab, system.project):
        if hanging:
            _send(lab, system, hanging, repo=SLOW_REPO)
            until(lambda: system.hooks.state().now == hanging)
        answered = dict(_paced(system.port, paced))
        wanted = answered.keys()
        until(lambda: wanted <= system.hooks.called().keys(), seconds=5, pause=0.25)
        called = system.hooks.called()
    # A call may arrive before the sender has read the answer.
    waits = [max(0.0, called[sha] - at) for sha, at in answered.items() if sha in called]
    return waits, paced - len(waits)


def _paced(port: int, count: int) -> Iterator[tuple[str, float]]:
    """Send webhooks one every CALL_MS; yield each commit and when its webhook was answered."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        due = time.monotonic()
        for number, body in enumerate(islice(Pushes(8).bodies(seed=4), count)):
            connection.request("POST", PATH, body, signed(body, number + 1))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 202:
                raise BenchmarkFailed(f"answered {answer.status}")
            yield json.loads(body)["after"], time.monotonic()
            due += CALL_MS / 1000
            time.sleep(max(0.0, due - time.monotonic()))
