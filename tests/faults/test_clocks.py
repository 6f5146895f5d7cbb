"""Clocks that jump, in the short form; `make torture` runs the long one."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.faults.clocks import Clocks
from tests.faults.rig import SETTLED


@pytest.mark.timeout(2 * SETTLED)
async def test_clocks_that_jump_lose_and_double_nothing() -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as folder:
        clocks = Clocks(Path(folder), seconds=6, rate=20, seed=seed)
        balance = await clocks.run()

    assert not balance.wrong(), f"seed {seed}"
    assert balance.acknowledged == balance.deployed + balance.superseded > 500, f"seed {seed}"
    # Calls that were under way have not been taken for those of a dead worker.
    events = clocks.events
    assert events["deploy.uncertain"] == 0, f"seed {seed}"
    # Retries waited for their time and have been made.
    assert events["deploy.retry_scheduled"] > 10, f"seed {seed}"
    for phase, seen in clocks.load.seen.items():
        assert seen.statuses.keys() == {202}, f"{phase}, seed {seed}"
