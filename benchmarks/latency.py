"""Latency: from the webhook sent to the deploy hook called, where nothing else is going on."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple

from benchmarks.lab import HOOK as PATH
from benchmarks.lab import Lab
from benchmarks.payloads import Pushes, signed
from benchmarks.processes import BenchmarkFailed
from benchmarks.project import LedgerFsync
from benchmarks.receivers import STARTS
from benchmarks.system import System, open_system, working
from benchmarks.tables import Table, bars, percentile
from benchmarks.tree import OURS, Tree, before

PAUSE = 0.02
"""Seconds between a call and the next webhook, so that the system is idle when it comes."""

WARM = 10

SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}


class _Webhook(NamedTuple):
    sent: float
    answered: float
    called: float
    """0 where nothing is called."""


class _Times(NamedTuple):
    """Milliseconds of each webhook."""

    answered: list[float]
    called: list[float]


def run(lab: Lab, count: int) -> dict[str, Any]:
    """So many webhooks one after the other, to each system in turn."""
    rows = {"C1": _Times(_floor(lab, count), [])} | _measure(lab, count)
    print(f"\nLatency of an idle system, 8 KB ({count} webhooks one after the other)")
    table = Table("from sent to", "p50 ms", "p90 ms", "p99 ms", "max ms")
    result: dict[str, Any] = {"webhooks": count}
    for what in _Times._fields:
        for name, one in rows.items():
            values: list[float] = getattr(one, what)
            if not values:
                continue
            figures = {key: percentile(values, share) for key, share in SHARES.items()}
            table.row(f"{what}, {name}", *(f"{figure:.2f}" for figure in figures.values()))
            result[f"{what}, {name}"] = figures
            result[f"{what}, {name}, each"] = [round(value, 3) for value in values]
    print(table)
    former = result.get("called, before")
    for name in rows:
        if former is not None and name not in ("C1", "before"):
            ratio = result[f"called, {name}"]["p50_ms"] / former["p50_ms"]
            result[f"p50 of {name} / before"] = ratio
            print(f"  called, p50, {name} / before: {ratio:.2f}")
    print("  ours, called within ms:")
    print(bars(rows["ours"].called))
    return result


def _floor(lab: Lab, count: int) -> list[float]:
    """Milliseconds until C1 answers: what waking an idle machine up takes in any case."""
    receiver = STARTS["C1"](lab)
    try:
        webhooks = _send([receiver.port], WARM + count)
        return [(webhook.answered - webhook.sent) * 1000 for [webhook] in webhooks][WARM:]
    finally:
        receiver.stop()


def _measure(lab: Lab, count: int) -> dict[str, _Times]:
    """All systems are up at once and get webhooks in turn, so that noise meets all of them."""
    measured: list[tuple[str, Tree, LedgerFsync]] = [
        ("ours", OURS, "full"),
        ("ours+normal", OURS, "normal"),
    ]
    former = before()
    if former is not None:
        measured.append((former.name, former, "full"))
    times = {name: _Times([], []) for name, _, _ in measured}
    with ExitStack() as stack:
        systems: list[System] = []
        for _, tree, fsync in measured:
            system = stack.enter_context(open_system(lab, tree=tree, fsync=fsync))
            stack.enter_context(working(lab, system.project))
            systems.append(system)
        ports = [system.port for system in systems]
        for turn, webhooks in enumerate(_send(ports, WARM + count, systems)):
            if turn < WARM:
                continue
            for (name, _, _), webhook in zip(measured, webhooks, strict=True):
                times[name].answered.append((webhook.answered - webhook.sent) * 1000)
                times[name].called.append((webhook.called - webhook.sent) * 1000)
    return times


def _send(
    ports: list[int], count: int, systems: list[System] | None = None
) -> Iterator[list[_Webhook]]:
    """Send each webhook to one port after the other. ``systems`` are idle again before the next."""
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports]
    for number, body in enumerate(islice(Pushes(8).bodies(seed=3), count)):
        headers = signed(body, number + 1)
        webhooks = []
        for place, connection in enumerate(connections):
            sent = time.monotonic()
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            said = answer.read()
            at = time.monotonic()
            if answer.status != 202:
                raise BenchmarkFailed(f"answered {answer.status}: {said.decode()}")
            called = systems[place].hooks.wait(json.loads(body)["after"]) if systems else 0
            webhooks.append(_Webhook(sent, at, called))
            time.sleep(PAUSE)
        yield webhooks
    for connection in connections:
        connection.close()
