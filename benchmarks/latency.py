"""Latency: from the webhook sent to the deploy hook called, where nothing else is going on."""

from __future__ import annotations

import http.client
import json
import time
from itertools import islice
from typing import Any

from benchmarks.lab import HOOK as PATH
from benchmarks.lab import Lab
from benchmarks.payloads import Pushes, signed
from benchmarks.processes import BenchmarkFailed
from benchmarks.system import open_system, working
from benchmarks.tables import Table, bars, percentile

PAUSE = 0.02
"""Seconds between a call and the next webhook, so that the system is idle when it comes."""

WARM = 10


def run(lab: Lab, count: int) -> dict[str, Any]:
    """So many webhooks one after the other."""
    answered, called = _measure(lab, count)
    result: dict[str, Any] = {"webhooks": count}
    print(f"\nLatency of an idle system, 8 KB ({count} webhooks one after the other)")
    table = Table("from sent to", "p50 ms", "p90 ms", "p99 ms", "max ms")
    for label, values in (("answered", answered), ("called", called)):
        figures = [percentile(values, share) for share in (0.5, 0.9, 0.99, 1)]
        table.row(label, *(f"{figure:.2f}" for figure in figures))
        result[label] = dict(zip(("p50_ms", "p90_ms", "p99_ms", "max_ms"), figures, strict=True))
        result[f"{label}_ms"] = [round(value, 3) for value in values]
    print(table)
    print("  called within ms:")
    print(bars(called))
    return result


def _measure(lab: Lab, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until answered, and until called."""
    answered, called = [], []
    with open_system(lab) as system, working(lab, system.project):
        connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=30)
        for number, body in enumerate(islice(Pushes(8).bodies(seed=3), WARM + count)):
            headers = signed(body, number)
            sent = time.monotonic()
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            said = answer.read()
            at = time.monotonic()
            if answer.status != 202:
                raise BenchmarkFailed(f"answered {answer.status}: {said.decode()}")
            call = system.hooks.wait(json.loads(body)["after"])
            if number >= WARM:
                answered.append((at - sent) * 1000)
                called.append((call - sent) * 1000)
            time.sleep(PAUSE)
        connection.close()
    return answered, called
