"""Run the order machine for long and print what it did:

    RELAY_TORTURE_MINUTES=20 python -m tests.faults.order --seed 1

``RELAY_BIN`` names the command that is driven; with another release the shortest example that
fails is what that release gets wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback

from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.order_machine import OrderMachine
from tests.faults.order_world import new_world


def main() -> None:
    """Run rounds of examples until the time is over; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    parser.add_argument("--minutes", type=float, default=_minutes())
    parser.add_argument("--shrink", action="store_true", help="look for the shortest example")
    given = parser.parse_args()
    phases = [Phase.generate, *([Phase.shrink] if given.shrink else [])]
    chosen = settings(
        max_examples=10, stateful_step_count=20, database=None, deadline=None, phases=phases
    )
    world = new_world()
    deadline, number, is_good = time.monotonic() + given.minutes * 60, given.seed, True
    try:
        world.start()
        OrderMachine.world = world
        while is_good and time.monotonic() < deadline:
            sys.stdout.write(f"seed {number}\n")
            try:
                run_state_machine_as_test(seed(number)(OrderMachine), settings=chosen)
            except Exception:
                traceback.print_exc()
                is_good = False
            number += 1
    finally:
        world.stop()
    sys.stdout.write(
        f"{OrderMachine.examples} examples, {OrderMachine.steps} steps, "
        f"{dict(OrderMachine.happened)}\n"
    )
    sys.exit(0 if is_good else 1)


def _minutes() -> float:
    return float(os.environ.get("RELAY_TORTURE_MINUTES", "20"))


if __name__ == "__main__":
    main()
