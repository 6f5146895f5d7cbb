"""Fixtures: an empty ledger, and the clock that it goes by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.ledger.ledger import Ledger, prepare


class Clock:
    """The time, in seconds since the Unix epoch, as the test sets it."""

    def __init__(self) -> None:
        self.now = 1_899_979_200.0

    def __call__(self) -> int:
        return round(self.now * 1e6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    prepare(tmp_path)
    ledger = Ledger(tmp_path, full_sync=False, clock=clock)
    yield ledger
    await ledger.close()
