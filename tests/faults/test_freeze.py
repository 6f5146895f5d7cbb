"""Stopped processes in the short form; `make torture` runs the long one."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.faults.freeze import ENDED, Freeze
from tests.faults.rig import SETTLED

STORE_TIMEOUT = 3
"""Seconds after which the receiver says 503, as RELAY_STORE_TIMEOUT is by default."""


@pytest.mark.timeout(SETTLED + 3 * ENDED)
async def test_stopped_processes_lose_and_double_nothing() -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as folder:
        freeze = Freeze(Path(folder), stops=4, inside=2, rate=20, seed=seed)
        balance = await freeze.run()

    assert not balance.wrong(), f"seed {seed}"
    assert balance.acknowledged > 100, f"seed {seed}"
    assert sum(freeze.stops.values()) == 4, f"seed {seed}"
    assert freeze.events["ledger.holder_killed"] == 2, f"seed {seed}"
    # Senders were refused while the lock was kept, and did not have to wait long for that.
    assert any(seen.statuses[503] for seen in freeze.load.seen.values()), f"seed {seed}"
    assert freeze.longest_refusal < STORE_TIMEOUT + 2, f"seed {seed}"
