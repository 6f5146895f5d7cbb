"""The crash campaign in its short form; `make torture` runs the long one."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign
from tests.faults.rig import SETTLED


@pytest.mark.timeout(SETTLED + 120)
async def test_ten_kills_lose_and_double_nothing() -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as folder:
        balance = await Campaign(Path(folder), deliveries=300, kills=10, seed=seed).run()

    assert not balance.wrong(), f"seed {seed}"
    assert balance.acknowledged == 300, f"seed {seed}"
    # How many are superseded by a newer push depends on how long the kills last.
    assert balance.deployed > 200, f"seed {seed}"
