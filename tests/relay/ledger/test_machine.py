"""The first state machine, as a test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.relay.ledger.engine import Engine
from tests.relay.ledger.example import Example
from tests.relay.ledger.machine import LedgerMachine

EXAMPLES = 300
STEPS = 40
LEAST = 100
"""Times that each rule has to have fired."""


def test_ledger_keeps_order_and_calls_once() -> None:
    Example.engine = Engine()
    try:
        run_state_machine_as_test(
            LedgerMachine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Example.engine.close()
    assert Example.ended["long examples"] >= EXAMPLES
    rare = {name: count for name, count in Example.fired.items() if count < LEAST}
    assert not rare
