"""When a claim ends: by the wall clock, and by the clock since boot that no jump moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.ledger import claims
from relay.ledger.ledger import Ledger
from relay.ledger.rows import microseconds
from relay.ledger.sqlite import system_clock
from tests.relay.ledger.rows import Policies, add_deploy, ask

HOUR = microseconds(3600)

HOLDS = Policies().claim_seconds("")


class Clocks:
    """The two clocks of a machine."""

    ahead = 0
    since_boot = 1_000.0

    def now(self) -> int:
        return system_clock() + self.ahead


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(claims, "boot_id", lambda: "this boot")
    monkeypatch.setattr(claims, "boot_seconds", lambda: clocks.since_boot)
    return clocks


async def test_a_clock_that_jumps_ends_no_claim(folder: Path, clocks: Clocks) -> None:
    ledger = Ledger(folder, clock=clocks.now)
    deploy = await add_deploy(ledger, "a")
    assert await ask(ledger, deploy) is not None
    clocks.ahead = HOUR
    clocks.since_boot += HOLDS - 1
    assert await ask(ledger, deploy) is None

    clocks.since_boot += 1
    again = await ask(ledger, deploy)
    assert again is not None
    assert again.uncertain is not None
    await ledger.close()


async def test_a_claim_of_another_boot_or_machine_ends_by_the_wall_clock(
    folder: Path, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(folder, clock=clocks.now)
    deploy = await add_deploy(ledger, "a")
    assert await ask(ledger, deploy) is not None
    monkeypatch.setattr(claims, "boot_id", lambda: "another boot")
    assert await ask(ledger, deploy) is None
    clocks.ahead = microseconds(HOLDS + 1)
    assert await ask(ledger, deploy) is not None
    await ledger.close()
