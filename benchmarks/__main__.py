"""``python -m benchmarks``: all measurements, or one of them with its own arguments."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from benchmarks import intake as intake_benchmark
from benchmarks.lab import Lab, dump, open_lab
from benchmarks.processes import BenchmarkFailed
from benchmarks.receivers import STARTS
from benchmarks.store import Fsync

LATEST = Path(__file__).with_name("results") / "latest.json"

_JSON = click.option(
    "--json", "path", type=click.Path(path_type=Path), default=LATEST, help="Where results go."
)


@click.group(invoke_without_command=True)
def main() -> None:
    """Measure deploy-relay on this machine."""


@main.command()
@click.option("--sizes", default="8,80", show_default=True, help="Kilobytes of a push.")
@click.option("--connections", default="32,256", show_default=True)
@click.option("--fsync", default="everysec", show_default=True, help="everysec, always or both.")
@click.option("--servers", default=",".join(STARTS), show_default=True)
@click.option("--processes", default=1, show_default=True, help="Also ours with so many.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of one measurement.")
@_JSON
def intake(
    sizes: str,
    connections: str,
    fsync: str,
    servers: str,
    processes: int,
    rounds: int,
    seconds: float,
    path: Path,
) -> None:
    """Webhooks a second that are verified, stored and answered, against the ceilings."""
    cases = [
        intake_benchmark.Case(int(size), int(number), cast(Fsync, mode))
        for size in sizes.split(",")
        for number in connections.split(",")
        for mode in fsync.split(",")
    ]
    plan = intake_benchmark.Plan(rounds, seconds)
    _run(
        path,
        intake=lambda lab: intake_benchmark.run(lab, cases, plan, servers.split(","), processes),
    )


def _run(path: Path, **parts: Callable[[Lab], Any]) -> None:
    """Run parts one after the other and keep what they found, also if a later one fails."""
    began = time.monotonic()
    results: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    try:
        with open_lab() as lab:
            results["cores"] = str(lab.cores)
            print(f"{lab.cores}; load: benchmarks/load.c")
            for name, part in parts.items():
                results[name] = part(lab)
                dump(path, results)
    except BenchmarkFailed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{time.monotonic() - began:.0f} s; results in {path}")


if __name__ == "__main__":
    main()
