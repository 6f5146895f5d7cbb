"""Lists, searches, counts and the overview of a ledger that holds much, while webhooks arrive."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lab import Lab
from benchmarks.ledger_fill import DAYS, Size, fill
from benchmarks.processes import pinned
from benchmarks.tables import Table, percentile
from relay.ledger.filters import Filter, branch_patterns, repo_patterns
from relay.ledger.ledger import read_blocking
from relay.ledger.lists import count, list_records
from relay.ledger.overview import read_overview
from relay.ledger.pace import Pace
from relay.ledger.records import RecordKind
from relay.ledger.sqlite import FILE, connect
from relay.ledger.transaction import Reader

SHOWN = 50
"""Records of a page."""

RATE = 200
"""Webhooks a second that arrive meanwhile."""

_BEGUN = b"begun\n"

Look = Callable[[Reader], Awaitable[object]]


class Plan(NamedTuple):
    """How much the ledger holds, and how often each list is read."""

    deliveries: int = 1_000_000
    rounds: int = 50


class Figures(NamedTuple):
    """How long one list took, in milliseconds, and how much of the processor at most."""

    p50: float
    p99: float
    cpu: float


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Fill a ledger, and read each list several times."""
    folder = lab.new_folder()
    fill(folder, Size(plan.deliveries))
    with pinned(lab.cores.others), _webhooks(folder):
        began, figures = time.perf_counter(), {}
        with pinned(lab.cores.tested):
            for name, look in _looks(folder, plan.deliveries).items():
                figures[name] = _measure(folder, look, plan.rounds)
        took = time.perf_counter() - began
    size = (folder / FILE).stat().st_size
    print(
        f"\nLists of {plan.deliveries:,} deliveries and {2 * plan.deliveries:,} deploys "
        f"({size / 2**30:.1f} GiB), while {RATE} webhooks a second arrive"
    )
    table = Table("list", "p50, ms", "p99, ms", "CPU at most, ms")
    for name, one in figures.items():
        table.row(name, f"{one.p50:.1f}", f"{one.p99:.1f}", f"{one.cpu:.1f}")
    print(table)
    return {
        "deliveries": plan.deliveries,
        "bytes": size,
        "seconds": took,
        "lists": {name: one._asdict() for name, one in figures.items()},
    }


def _measure(folder: Path, look: Look, rounds: int) -> Figures:
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.thread_time()
        read_blocking(folder, look)
        walls.append(1e3 * (time.perf_counter() - wall))
        cpus.append(1e3 * (time.thread_time() - cpu))
    return Figures(percentile(walls, 0.5), percentile(walls, 0.99), max(cpus))


@contextmanager
def _webhooks(folder: Path) -> Iterator[None]:
    """Have webhooks arrive while the block lasts."""
    command = [sys.executable, "-m", "benchmarks.ledger_writer", str(folder), str(RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            if writer.stdout is None or writer.stdout.readline() != _BEGUN:
                raise RuntimeError("no webhook arrives")
            yield
        finally:
            writer.terminate()


def _looks(folder: Path, deliveries: int) -> dict[str, Look]:
    looks: dict[str, Look] = {"overview": _overview(Pace())}
    for name, (kind, chosen) in _searches(folder, deliveries).items():
        looks[name] = _page(kind, chosen)
    counts: dict[str, tuple[RecordKind, Filter]] = {
        "count: deliveries": ("delivery", Filter()),
        "count: failed deploys": ("deploy", Filter(statuses=frozenset({"failed"}))),
    }
    return looks | {name: _count(kind, chosen) for name, (kind, chosen) in counts.items()}


def _page(kind: RecordKind, chosen: Filter) -> Look:
    return lambda reader: list_records(reader, kind, chosen, SHOWN)


def _count(kind: RecordKind, chosen: Filter) -> Look:
    return lambda reader: count(reader, kind, chosen)


def _overview(pace: Pace) -> Look:
    return lambda reader: read_overview(reader, {}, None, pace)


def _searches(folder: Path, deliveries: int) -> dict[str, tuple[RecordKind, Filter]]:
    """Filters as people set them, and some that fit little, nothing or only what is old."""
    [sha] = (
        connect(folder / FILE, mode="ro")
        .execute("SELECT sha FROM delivery WHERE id = ?", (deliveries // 3,))
        .fetchone()
    )
    now = time.time()
    middle = now - DAYS / 2 * 86_400
    main = branch_patterns(("main",))
    both = {
        "all": Filter(),
        "a repository": Filter(repos=repo_patterns(("acme/web-500",))),
        "a repository, long silent": Filter(repos=repo_patterns(("legacy/service-509",))),
        "no repository": Filter(repos=repo_patterns(("acme/nothing",))),
        "a branch": Filter(branches=main),
        "a branch, few": Filter(branches=branch_patterns(("feature/77",))),
        "a commit": Filter(sha=sha[:8]),
        "an author": Filter(author="dev7"),
        "a day, long ago": Filter(since=middle, until=middle + 86_400),
        "until a day": Filter(until=middle),
        "a repository and a branch": Filter(repos=repo_patterns(("acme/web-0",)), branches=main),
        "a repository, an author, a month": Filter(
            repos=repo_patterns(("acme/web-0",)), author="dev9", since=now - 30 * 86_400
        ),
        "glob: a few repositories": Filter(repos=repo_patterns(("legacy/*",))),
        "glob: all repositories": Filter(repos=repo_patterns(("acme/*",))),
        "glob: branches": Filter(branches=branch_patterns(("release/*",))),
        "glob: few branches": Filter(branches=branch_patterns(("*/7777*",))),
        "re: repositories": Filter(repos=repo_patterns(("re:.*-5.9",))),
        "re: branches": Filter(branches=branch_patterns(("re:.*/99999",))),
        "words: frequent": Filter(words="cache"),
        "words: two": Filter(words="cache button"),
        "words: none": Filter(words="xylophone"),
    }
    of_deliveries = {
        "queued": Filter(statuses=frozenset({"queued"})),
        "a source": Filter(sources=frozenset({"gitlab"})),
        "late": Filter(verdicts=frozenset({"late"})),
    }
    target = frozenset({"target-5"})
    failed = frozenset({"failed"})
    of_deploys = {
        "a target": Filter(targets=target),
        "a target, failed": Filter(targets=target, statuses=failed),
        "a target and a branch": Filter(targets=target, branches=main),
        "a route": Filter(routes=frozenset({"route-5"})),
        "failed": Filter(statuses=failed),
        "failed, of a repository": Filter(statuses=failed, repos=repo_patterns(("acme/web-0",))),
        "waiting": Filter(statuses=frozenset({"waiting"})),
        "needs attention": Filter(attention=True),
    }
    return {
        **{
            f"deliveries: {name}": ("delivery", one) for name, one in (both | of_deliveries).items()
        },
        **{f"deploys: {name}": ("deploy", one) for name, one in (both | of_deploys).items()},
    }
