"""Latency: from the webhook sent to the deploy hook called, where nothing else is going on."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from benchmarks.lab import HOOK as PATH
from benchmarks.lab import Lab
from benchmarks.payloads import Pushes, signed
from benchmarks.processes import BenchmarkFailed
from benchmarks.receivers import STARTS
from benchmarks.system import open_system, working
from benchmarks.tables import Table, bars, percentile

PAUSE = 0.02
"""Seconds between a call and the next webhook, so that the system is idle when it comes."""

WARM = 10


class _Webhook(NamedTuple):
    sha: str
    sent: float
    answered: float


def run(lab: Lab, count: int) -> dict[str, Any]:
    """So many webhooks one after the other."""
    floor = _floor(lab, count)
    answered, called = _measure(lab, count)
    result: dict[str, Any] = {"webhooks": count}
    print(f"\nLatency of an idle system, 8 KB ({count} webhooks one after the other)")
    table = Table("from sent to", "p50 ms", "p90 ms", "p99 ms", "max ms")
    rows = {"answered by C1": floor, "answered": answered, "called": called}
    for label, values in rows.items():
        figures = [percentile(values, share) for share in (0.5, 0.9, 0.99, 1)]
        table.row(label, *(f"{figure:.2f}" for figure in figures))
        result[label] = dict(zip(("p50_ms", "p90_ms", "p99_ms", "max_ms"), figures, strict=True))
        result[f"{label}, each"] = [round(value, 3) for value in values]
    print(table)
    print("  called within ms:")
    print(bars(called))
    return result


def _floor(lab: Lab, count: int) -> list[float]:
    """Milliseconds until C1 answers: what waking an idle machine up takes in any case."""
    receiver = STARTS["C1"](lab, "everysec")
    try:
        return [
            (webhook.answered - webhook.sent) * 1000 for webhook in _send(receiver.port, count)
        ][WARM:]
    finally:
        receiver.stop()


def _measure(lab: Lab, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until answered, and until called."""
    answered, called = [], []
    with open_system(lab) as system, working(lab, system.project):
        for webhook in _send(system.port, count):
            call = system.hooks.wait(webhook.sha)
            answered.append((webhook.answered - webhook.sent) * 1000)
            called.append((call - webhook.sent) * 1000)
    return answered[WARM:], called[WARM:]


def _send(port: int, count: int) -> Iterator[_Webhook]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for number, body in enumerate(islice(Pushes(8).bodies(seed=3), WARM + count)):
        headers = signed(body, number)
        sent = time.monotonic()
        connection.request("POST", PATH, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        at = time.monotonic()
        if answer.status != 202:
            raise BenchmarkFailed(f"answered {answer.status}: {said.decode()}")
        yield _Webhook(json.loads(body)["after"], sent, at)
        time.sleep(PAUSE)
    connection.close()
