"""``python -m benchmarks``: all measurements, or one of them with its own arguments."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import audit as audit_benchmark
from benchmarks import check, ledger_bytes
from benchmarks import cost as cost_benchmark
from benchmarks import growth as growth_benchmark
from benchmarks import intake as intake_benchmark
from benchmarks import latency as latency_benchmark
from benchmarks import lists as lists_benchmark
from benchmarks import worker as worker_benchmark
from benchmarks.environment import describe
from benchmarks.lab import Lab, dump, open_lab
from benchmarks.processes import BenchmarkFailed
from benchmarks.receivers import BEFORE, STARTS
from relay.embedded import NoEmbeddedServer

LATEST = Path(__file__).with_name("results") / "latest.json"
SHOWN = ("processor", "redis", "webhook", "data_on", "cores", "load")
"""Facts about the machine that are printed; the JSON has all of them."""

Part = Callable[[Lab], Any]

COMPARED = [*(name for name in STARTS if "+" not in name), BEFORE]
"""Receivers that are compared in every case."""

CASES = [intake_benchmark.Case(size, number) for size in (8, 80) for number in (32, 256)]
FULL: dict[str, Part] = {
    "intake": lambda lab: intake_benchmark.run(
        lab, CASES, intake_benchmark.Plan(rounds=4, seconds=1.2), COMPARED
    ),
    "intake_normal": lambda lab: intake_benchmark.run(
        lab, CASES[:1], intake_benchmark.Plan(rounds=3, seconds=1.2), ["C1", "ours", "ours+normal"]
    ),
    "intake_processes": lambda lab: intake_benchmark.run(
        lab, CASES[:1], intake_benchmark.Plan(rounds=3, seconds=1.2), ["ours"], processes=2
    ),
    "intake_paths": lambda lab: intake_benchmark.run(
        lab,
        [intake_benchmark.Case(80, 32)],
        intake_benchmark.Plan(rounds=3, seconds=1.2),
        ["C1", "ours", "ours+paths"],
    ),
    "latency": lambda lab: latency_benchmark.run(lab, 300),
    "worker": lambda lab: worker_benchmark.run(lab, worker_benchmark.Plan()),
    "cost": lambda lab: cost_benchmark.run(lab, 3_000, rounds=3),
    "growth": lambda lab: growth_benchmark.run(lab, growth_benchmark.Plan()),
    "audit": lambda lab: audit_benchmark.run(lab, audit_benchmark.Plan()),
    "lists": lambda lab: lists_benchmark.run(lab, lists_benchmark.Plan()),
    "size": lambda _: ledger_bytes.run(20_000),
}
QUICK: dict[str, Part] = {
    "intake": lambda lab: intake_benchmark.run(
        lab, [CASES[0], CASES[2]], intake_benchmark.Plan(rounds=1, seconds=1), COMPARED
    ),
    "latency": lambda lab: latency_benchmark.run(lab, 50),
    "worker": lambda lab: worker_benchmark.run(
        lab, worker_benchmark.Plan(rounds=1, deliveries=500, paced=40)
    ),
    "cost": lambda lab: cost_benchmark.run(lab, 500, rounds=1),
    "growth": lambda lab: growth_benchmark.run(
        lab,
        growth_benchmark.Plan(
            routes=1_000, repositories=200, waiting=5_000, rounds=1, seconds=1, drain=5
        ),
    ),
    "audit": lambda lab: audit_benchmark.run(lab, audit_benchmark.Plan(lines=2_000, rounds=3)),
    "lists": lambda lab: lists_benchmark.run(
        lab, lists_benchmark.Plan(deliveries=20_000, rounds=5)
    ),
    "size": lambda _: ledger_bytes.run(1_000),
}

_JSON = click.option(
    "--json", "path", type=click.Path(path_type=Path), default=LATEST, help="Where results go."
)


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="Smaller numbers: faster, and rougher.")
@_JSON
@click.pass_context
def main(context: click.Context, quick: bool, path: Path) -> None:
    """Measure deploy-relay on this machine: everything, or one of the commands."""
    if context.invoked_subcommand is None:
        _run(path, quick=quick, **(QUICK if quick else FULL))


@main.command()
@click.option("--sizes", default="8,80", show_default=True, help="Kilobytes of a push.")
@click.option("--connections", default="32,256", show_default=True)
@click.option("--servers", default=",".join(COMPARED), show_default=True)
@click.option("--processes", default=1, show_default=True, help="Also ours with so many.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of one measurement.")
@_JSON
def intake(
    sizes: str,
    connections: str,
    servers: str,
    processes: int,
    rounds: int,
    seconds: float,
    path: Path,
) -> None:
    """Webhooks a second that are verified, stored and answered, against the ceilings."""
    cases = [
        intake_benchmark.Case(int(size), int(number))
        for size in sizes.split(",")
        for number in connections.split(",")
    ]
    plan = intake_benchmark.Plan(rounds, seconds)
    _run(
        path,
        intake=lambda lab: intake_benchmark.run(lab, cases, plan, servers.split(","), processes),
    )


@main.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--deliveries", default=4_000, show_default=True, help="Of a measurement of speed.")
@click.option("--paced", default=200, show_default=True, help="Deploys beside a hanging target.")
@_JSON
def worker(rounds: int, deliveries: int, paced: int, path: Path) -> None:
    """Deploys a second against `rq worker`, memory, and a target that hangs."""
    plan = worker_benchmark.Plan(rounds, deliveries, paced)
    _run(path, worker=lambda lab: worker_benchmark.run(lab, plan))


@main.command()
@click.option("--count", default=300, show_default=True, help="Webhooks, one after the other.")
@_JSON
def latency(count: int, path: Path) -> None:
    """From a webhook sent to its deploy hook called, on an idle system."""
    _run(path, latency=lambda lab: latency_benchmark.run(lab, count))


@main.command()
@click.option("--routes", default=10_000, show_default=True)
@click.option("--repositories", default=2_000, show_default=True)
@click.option("--waiting", default=100_000, show_default=True, help="Deliveries in the queue.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of one measurement of a rate.")
@click.option("--drain", default=25.0, show_default=True, help="Seconds to watch the worker.")
@_JSON
def growth(
    routes: int,
    repositories: int,
    waiting: int,
    rounds: int,
    seconds: float,
    drain: float,
    path: Path,
) -> None:
    """What many routes and many waiting deliveries cost."""
    plan = growth_benchmark.Plan(routes, repositories, waiting, rounds, seconds, drain)
    _run(path, growth=lambda lab: growth_benchmark.run(lab, plan))


@main.command()
@click.option("--deliveries", default=3_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@_JSON
def cost(deliveries: int, rounds: int, path: Path) -> None:
    """Processor time of the whole system for a delivery with one deploy."""
    _run(path, cost=lambda lab: cost_benchmark.run(lab, deliveries, rounds))


@main.command()
@click.option("--lines", default=20_000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@_JSON
def audit(lines: int, rounds: int, path: Path) -> None:
    """What the audit file costs a line, and how fast its chain is verified."""
    plan = audit_benchmark.Plan(lines, rounds)
    _run(path, audit=lambda lab: audit_benchmark.run(lab, plan))


@main.command()
@click.option("--deliveries", default=1_000_000, show_default=True)
@click.option("--rounds", default=50, show_default=True)
@_JSON
def lists(deliveries: int, rounds: int, path: Path) -> None:
    """How long lists, searches and the overview take where the ledger holds much."""
    plan = lists_benchmark.Plan(deliveries, rounds)
    _run(path, lists=lambda lab: lists_benchmark.run(lab, plan))


@main.command()
@click.option("--deliveries", default=20_000, show_default=True)
@_JSON
def size(deliveries: int, path: Path) -> None:
    """Bytes of the ledger for a delivery, by table, and its size after a year."""
    _run(path, size=lambda _: ledger_bytes.run(deliveries))


@main.command(name="check")
@click.option("--record", is_flag=True, help="Write benchmarks/recorded.json instead.")
def check_ratio(record: bool) -> None:
    """Fail if intake has fallen more than 20 % under the recorded ratio to C1."""
    _run(None, check=lambda lab: check.run(lab, record=record))


def _run(path: Path | None, *, quick: bool = False, **parts: Part) -> None:
    """Run parts one after the other; one that fails does not keep the others from running."""
    # So that whatever stops the benchmarks, they stop what they have started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    failed = False
    try:
        with open_lab() as lab:
            facts = describe(lab)
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            results: dict[str, Any] = {"at": at, "quick": quick, "environment": facts}
            print("\n".join(f"{name}: {fact}" for name, fact in facts.items() if name in SHOWN))
            for name, part in parts.items():
                try:
                    results[name] = part(lab)
                except BenchmarkFailed as failure:
                    failed = True
                    results[name] = {"failed": str(failure)}
                    print(f"\n{name} failed: {failure}", file=sys.stderr)
                if path is not None:
                    dump(path, results)
    except (BenchmarkFailed, NoEmbeddedServer) as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{time.monotonic() - began:.0f} s{f'; results in {path}' if path else ''}")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
