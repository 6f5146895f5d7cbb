"""How the first state machine is run: by the test, and for as long as somebody likes."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis.stateful import run_state_machine_as_test

from tests.relay.ledger.engine import Engine
from tests.relay.ledger.example import Example
from tests.relay.ledger.machine import LedgerMachine

STEPS = 36
"""Rules of one example at most. Hypothesis begins with shorter ones."""


def run_machine(examples: int, seed: int | None = None) -> Counter[str]:
    """Run examples on a fresh ledger and return how often each rule did something.

    Raises what an example raises, the shortest one that fails.
    """
    Example.fired = Counter(dict.fromkeys(rule_names(), 0))
    Example.ended = Counter()
    Example.engine = Engine()
    machine = LedgerMachine if seed is None else with_seed(seed)(LedgerMachine)
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Example.engine.close()
    return Example.fired


def rule_names() -> list[str]:
    """Return the names of all rules."""
    return [rule.function.__name__ for rule in LedgerMachine().rules]
