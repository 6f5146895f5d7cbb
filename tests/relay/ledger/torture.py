"""The first state machine for RELAY_TORTURE_MINUTES (20): ``python -m tests.relay.ledger.torture``.

RELAY_TORTURE_SEED is the first seed; each round has the next one. Exits with 1 where one fails.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
import traceback
from collections import Counter

from tests.relay.ledger.example import Example
from tests.relay.ledger.machine_run import run_machine

EXAMPLES = 250
"""Examples of one round, which has a ledger of its own."""


def main() -> int:
    """Run rounds until the time is over. Return the exit code."""
    minutes = float(os.environ.get("RELAY_TORTURE_MINUTES", "20"))
    seed = int(os.environ.get("RELAY_TORTURE_SEED") or secrets.randbelow(10**9))
    deadline = time.monotonic() + minutes * 60
    done: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    while time.monotonic() < deadline:
        try:
            fired += run_machine(EXAMPLES, seed)
        except Exception:
            traceback.print_exc()
            _say(f"seed {seed} fails, after {_sum(done)}")
            return 1
        done += Example.ended
        _say(f"seed {seed}: {_sum(done)}")
        seed += 1
    for name, count in sorted(fired.items(), key=lambda item: item[1]):
        _say(f"{count:8} {name}")
    _say(f"ledger machine: {_sum(done)}, last seed {seed - 1}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _sum(done: Counter[str]) -> str:
    return f"{done['examples']} examples, {done['steps']} steps"


if __name__ == "__main__":
    sys.exit(main())
