"""The audit file: what a line costs with and without it, and how fast its chain is verified."""

from __future__ import annotations

import asyncio
import os
import time
from statistics import median
from typing import Any, NamedTuple

from benchmarks.lab import Lab
from benchmarks.processes import BenchmarkFailed, pinned
from benchmarks.tables import Table, with_spread
from relay import audit
from relay.audit_file import AuditFile, Policy
from relay.audit_reading import prove, size_of
from relay.chain import Finding

TOGETHER = (1, 4, 32)
"""Lines that are written at once."""

_FIELDS = {
    "delivery": "github--0f0e8a6c-5d1a-4a5e-9f0b-2f6f6c1f1d11",
    "source": "github",
    "kind": "push",
    "repo": "acme/web",
    "ref": "refs/heads/main",
    "sha": "3b" * 20,
    "bytes": 8_192,
}


class Plan(NamedTuple):
    """How much is measured."""

    lines: int = 20_000
    rounds: int = 5


def run(lab: Lab, plan: Plan) -> dict[str, Any]:
    """Lines written with and without a file in turn, then the chain."""
    path = lab.new_folder() / "audit.jsonl"
    file = AuditFile(path, Policy(1 << 40, 0, "interval", b"key"))
    table = Table("lines at once", "without us", "with us", "more us")
    result: dict[str, Any] = {}
    print(f"\nAudit file, microseconds a line ({plan.rounds} rounds, medians)")
    try:
        with pinned(lab.cores.tested):
            for number in TOGETHER:
                pairs = [
                    (_write(None, number, plan.lines), _write(file, number, plan.lines))
                    for _ in range(plan.rounds)
                ]
                without, with_file = (median(each) for each in zip(*pairs, strict=True))
                more = with_spread([after - before for before, after in pairs], ".1f")
                table.row(str(number), f"{without:.1f}", f"{with_file:.1f}", more)
                result[str(number)] = pairs
            print(table)
            speeds = [_verify(path) for _ in range(plan.rounds)]
    finally:
        audit.configure()
    print(f"  verify: {with_spread(speeds, '.0f')} MB a second")
    return {**result, "verify_mb_s": speeds}


def _write(file: AuditFile | None, together: int, lines: int) -> float:
    with open(os.devnull, "wb", buffering=0) as nowhere:
        audit.configure(stream=nowhere, file=file)
        return asyncio.run(_said(together, lines)) / lines * 1e6


async def _said(together: int, lines: int) -> float:
    # Within an event loop lines wait for the flush; without one each is written at once.
    began = time.perf_counter()
    for _ in range(lines // together):
        for _ in range(together):
            audit.log.info("delivery.received", **_FIELDS)
        audit.flush()
    return time.perf_counter() - began


def _verify(path: Any) -> float:
    findings: list[Finding] = []
    began = time.perf_counter()
    prove(path, b"key", findings.append, lambda _: None)
    seconds = time.perf_counter() - began
    if findings:
        raise BenchmarkFailed(f"the chain is broken: {findings[0]}")
    return size_of(path) / seconds / 1e6
