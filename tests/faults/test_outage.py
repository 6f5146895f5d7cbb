"""Redis stopped and killed, in the short form; `make torture` runs the long one."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.faults.load import ANSWER
from tests.faults.outage import Outage
from tests.faults.rig import SETTLED


@pytest.mark.timeout(2 * SETTLED)
async def test_while_redis_is_stopped_or_killed_all_is_acknowledged_and_nothing_lost() -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as folder:
        outage = Outage(Path(folder), seconds=4, rate=40, seed=seed, store_timeout="500ms")
        balance = await outage.run()

    assert balance.wrong() == ([], [], []), f"seed {seed}"
    assert balance.acknowledged == balance.deployed + balance.uncertain, f"seed {seed}"
    for phase in ("stopped", "killed"):
        seen = outage.load.seen[phase]
        assert seen.acknowledged > 40, f"seed {seed}"
        assert seen.statuses.keys() == {202}, f"seed {seed}"
        assert seen.longest < ANSWER, f"seed {seed}"
        assert seen.ready["degraded"] > seen.ready["ready"], f"seed {seed}"
        assert seen.ready["not ready"] == 0, f"seed {seed}"
    # Both outages are told of, and their ends, and each delivery that took the detour.
    events = outage.events
    assert events["receiver.degraded"] == events["receiver.recovered"] == 2, f"seed {seed}"
    assert events["delivery.spooled"] == events["delivery.forwarded"] > 80, f"seed {seed}"
