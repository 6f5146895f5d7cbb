"""Guards the hot path: the intake ratio to C1 may not fall far under the recorded one."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from benchmarks.intake import Case, Plan, compare, ratios
from benchmarks.lab import Lab
from benchmarks.processes import BenchmarkFailed
from benchmarks.tables import spread

RECORDED = Path(__file__).with_name("recorded.json")
KEY = "ours / C1"
CASE = Case(size=8, connections=32)
PLAN = Plan(rounds=7, seconds=1)

TOLERANCE = 0.8
"""Share of the recorded ratio that is still accepted: a noisy machine is no regression."""


def run(lab: Lab, *, record: bool) -> None:
    """Measure, and record the ratio or compare it. Raises BenchmarkFailed if it fell too far."""
    found = ratios(compare(lab, CASE, PLAN, ("C1", "ours")))[KEY]
    measured = median(found)
    if record:
        RECORDED.write_text(json.dumps({KEY: round(measured, 3)}) + "\n", encoding="utf-8")
        print(f"{KEY}, {CASE}: {measured:.3f}, recorded")
        return
    if not RECORDED.exists():
        raise BenchmarkFailed("nothing is recorded yet: python -m benchmarks check --record")
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))[KEY]
    least = TOLERANCE * recorded
    print(
        f"{KEY}, {CASE}: {measured:.3f} ({spread(found, '.3f')}); "
        f"recorded {recorded:.3f}, at least {least:.3f} wanted"
    )
    if measured < least:
        raise BenchmarkFailed("intake has become slower; see benchmarks/README.md")
