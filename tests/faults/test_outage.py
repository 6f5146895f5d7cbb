"""Redis's faults in the short form; `make torture` runs the long one."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.faults.load import ANSWER
from tests.faults.outage import CALLED, Outage
from tests.faults.rig import SETTLED

COMMANDS = 4


@pytest.mark.timeout(2 * SETTLED)
async def test_whatever_redis_does_all_is_acknowledged_and_deployed_meanwhile() -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as folder:
        outage = Outage(
            Path(folder),
            seconds=3,
            command_seconds=1,
            rate=40,
            seed=seed,
            most_commands=COMMANDS,
        )
        balance = await outage.run()

    assert not balance.wrong(), f"seed {seed}"
    assert balance.acknowledged == balance.deployed + balance.superseded, f"seed {seed}"
    assert len(outage.refused) == COMMANDS, f"seed {seed}"
    for phase, seen in outage.load.seen.items():
        where = f"{phase}, seed {seed}"
        assert seen.statuses.keys() == {202}, where
        assert seen.longest < ANSWER, where
        assert seen.ready["not ready"] == 0, where
    for phase in ("stopped", "killed", "killed and empty", "read-only"):
        seen = outage.load.seen[phase]
        assert seen.called >= CALLED, f"{phase}, seed {seed}"
        assert seen.ready["degraded"] > 0, f"{phase}, seed {seed}"
    assert outage.events["queue.rebuilt"] > 0, f"seed {seed}"
