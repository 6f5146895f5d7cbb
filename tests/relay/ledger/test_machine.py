"""The first state machine, in the short form; ``python -m tests.relay.ledger.torture`` is long."""

from __future__ import annotations

import pytest

from tests.relay.ledger.example import Example
from tests.relay.ledger.machine_run import run_machine

EXAMPLES = 300
MORE = 110
"""Examples beyond them: the first ones, and some others, are shorter than 30 steps."""

LEAST = 100
"""Times that each rule has to have done something."""


@pytest.mark.timeout(900)  # A failing example is made shorter for five minutes.
def test_the_right_deploy_in_the_right_order_once() -> None:
    fired = run_machine(EXAMPLES + MORE)

    assert Example.ended["long examples"] >= EXAMPLES
    assert {name: count for name, count in fired.items() if count < LEAST} == {}
