"""Intake: how many webhooks a second are verified, stored and answered, against the ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from benchmarks import receivers
from benchmarks.lab import Lab, Load, Requests
from benchmarks.payloads import BRANCHES
from benchmarks.processes import BenchmarkFailed, Clock
from benchmarks.receivers import ANSWERS, Receiver, Start, start_of
from benchmarks.tables import Table, disturbance, spread, times, with_spread

WARM = 1_000
"""Answers before the clock starts; after them each branch is known."""

BRANCHES_EACH = 16
"""Branches for each connection at least."""

FASTEST = {8: 17_000, 80: 7_500}
"""Requests a second that no receiver which remembers deliveries is expected to exceed; the number
of requests to prepare follows from it. Where one does exceed it, its measurement is shorter."""


class Case(NamedTuple):
    """What the load looks like."""

    size: int
    connections: int

    def __str__(self) -> str:
        return f"{self.size} KB, {self.connections} connections"


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float

    def requests(self, size: int) -> int:
        """How many to prepare."""
        return WARM + int(FASTEST[size] * self.seconds)


class Measured(NamedTuple):
    """One receiver in one round."""

    load: Load
    cpu_us: float
    """Microseconds of processor time the receiver spent on a request."""
    redis_us: float
    others: float
    """Share of the machine that was busy with something else."""

    @property
    def other_core(self) -> float:
        """Share of their core that the generator and Redis needed; near 1, they are measured."""
        return self.load.busy + self.redis_us / 1e6 * self.load.rps

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        load = self.load
        return {
            "rps": round(load.rps),
            "p50_ms": load.p50_us / 1000,
            "p99_ms": load.p99_us / 1000,
            "max_ms": load.max_us / 1000,
            "cpu_us": round(self.cpu_us, 1),
            "redis_us": round(self.redis_us, 1),
            "requests": load.requests,
            "seconds": load.seconds,
            "other_core_busy": round(self.other_core, 3),
            "others_busy": round(self.others, 3),
        }


def measure(
    lab: Lab, start: Start, name: str, case: Case, plan: Plan, requests: Requests
) -> Measured:
    """Start a receiver, load it, check what it did, and stop it."""
    receiver = start(lab)
    try:
        store = receiver.store
        clock = Clock()
        before, redis_before = receiver.running.cpu(), store.running.cpu() if store else 0
        load = lab.load(
            receiver.port,
            requests,
            connections=case.connections,
            seconds=plan.seconds,
            warm=WARM,
            repeat=store is None,
        )
        cpu = receiver.running.cpu() - before
        redis = store.running.cpu() - redis_before if store else 0
        others = clock.others(cpu + redis + load.cpu)
        _check(receiver, name, load)
    finally:
        receiver.stop()
    return Measured(load, cpu / load.answered * 1e6, redis / load.answered * 1e6, others)


def _check(receiver: Receiver, name: str, load: Load) -> None:
    wanted = ANSWERS.get(name, 202)
    if load.statuses != {wanted: load.answered}:
        raise BenchmarkFailed(
            f"{name} answered {load.statuses}, not {wanted} only:\n{receiver.running.tail()}"
        )
    waiting = receiver.waiting() if receiver.waiting else load.answered
    if waiting != load.answered:
        raise BenchmarkFailed(f"{name} accepted {load.answered}, but {waiting} wait for a worker")


def prepare(lab: Lab, case: Case, plan: Plan) -> Requests:
    """Requests for a case. Two of one branch are never under way at once: the older one would come
    late."""
    branches = max(BRANCHES, BRANCHES_EACH * case.connections)
    return lab.prepare(case.size, plan.requests(case.size), branches=branches)


def compare(
    lab: Lab,
    case: Case,
    plan: Plan,
    names: Sequence[str],
    processes: int = 1,
    requests: Requests | None = None,
) -> list[dict[str, Measured]]:
    """The receivers take turns, so that noise on the machine meets all of them."""
    starts = {name: start_of(name) for name in names}
    if processes > 1:
        starts[f"ours x{processes}"] = receivers.relay(processes=processes)
    played = requests or prepare(lab, case, plan)
    return [
        {name: measure(lab, start, name, case, plan, played) for name, start in starts.items()}
        for _ in range(plan.rounds)
    ]


def run(
    lab: Lab, cases: Sequence[Case], plan: Plan, names: Sequence[str], processes: int = 1
) -> list[dict[str, Any]]:
    """All cases, one after the other."""
    absent = {name: why for name, why in receivers.missing().items() if name in names}
    present = [name for name in names if name not in absent]
    results = []
    for case in cases:
        requests = prepare(lab, case, plan)
        rounds = compare(lab, case, plan, present, processes, requests)
        results.append(_report(case, rounds, absent))
        requests.remove()
    return results


def _report(
    case: Case, rounds: list[dict[str, Measured]], absent: dict[str, str]
) -> dict[str, Any]:
    table = Table("", "req/s", "", "p50 ms", "p99 ms", "CPU us", "Redis us", "other core")
    result: dict[str, Any] = {"case": case._asdict(), "rounds": [], "medians": {}, "ratios": {}}
    for name in rounds[0]:
        of = [measured[name] for measured in rounds]
        rps = [one.load.rps for one in of]
        result["medians"][name] = {
            "rps": median(rps),
            "p50_ms": median(one.load.p50_us for one in of) / 1000,
            "p99_ms": median(one.load.p99_us for one in of) / 1000,
            "cpu_us": median(one.cpu_us for one in of),
            "redis_us": median(one.redis_us for one in of),
        }
        medians = result["medians"][name]
        table.row(
            name,
            f"{medians['rps']:,.0f}",
            spread(rps, ",.0f"),
            f"{medians['p50_ms']:.2f}",
            f"{medians['p99_ms']:.2f}",
            f"{medians['cpu_us']:.0f}",
            f"{medians['redis_us']:.0f}" if medians["redis_us"] else "",
            f"{max(one.other_core for one in of):.0%}",
        )
    result["rounds"] = [
        {name: one.as_json() for name, one in measured.items()} for measured in rounds
    ]
    print(f"\nIntake, {case} ({times(len(rounds))})")
    others = max(one.others for measured in rounds for one in measured.values())
    print(f"{table}{disturbance(others)}")
    result["ratios"] = ratios(rounds)
    for what, values in result["ratios"].items():
        print(f"  {what}: {with_spread(values, '.2f')}")
    for name, reason in absent.items():
        print(f"  {name}: {reason}")
    return result


def ratios(rounds: list[dict[str, Measured]]) -> dict[str, list[float]]:
    """Each a ratio within a round, so that a slow moment of the machine cancels out."""
    found: dict[str, list[float]] = {}
    for measured in rounds:
        ours = measured.get("ours")
        if ours is None:
            continue
        for name, other in measured.items():
            if name.startswith("ours") and name != "ours":
                key, ratio = f"{name} / ours", other.load.rps / ours.load.rps
            elif name != "ours":
                key, ratio = f"ours / {name}", ours.load.rps / other.load.rps
            else:
                continue
            found.setdefault(key, []).append(round(ratio, 4))
        if "before" in measured:
            cpu = _cpu(ours) / _cpu(measured["before"])
            found.setdefault("CPU of ours / CPU of before", []).append(round(cpu, 4))
        if "C1" in measured:
            p99 = ours.load.p99_us / measured["C1"].load.p99_us
            found.setdefault("p99 of ours / p99 of C1", []).append(round(p99, 4))
    return found


def _cpu(measured: Measured) -> float:
    """Microseconds of a request, of receiver and Redis."""
    return measured.cpu_us + measured.redis_us
