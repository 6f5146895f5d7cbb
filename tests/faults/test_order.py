"""The order machine in its short form; ``python -m tests.faults.order`` runs it for long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.order_machine import FAULTS, OrderMachine, scripted
from tests.faults.order_world import World, new_world

EXAMPLES = 20


@pytest.fixture
def world() -> Iterator[World]:
    world = new_world()
    try:
        world.start()
        OrderMachine.world = world
        yield world
    finally:
        world.stop()


@pytest.mark.timeout(600)
def test_what_is_live_is_the_newest_state(world: World) -> None:
    OrderMachine.happened.clear()
    # An example that fails is not made smaller here: each try takes seconds.
    run_state_machine_as_test(
        OrderMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=12,
            database=None,
            deadline=None,
            phases=[Phase.generate],
        ),
    )
    for fault in FAULTS:
        if not OrderMachine.happened[fault]:
            scripted(fault)
    assert all(OrderMachine.happened[fault] for fault in FAULTS), OrderMachine.happened
