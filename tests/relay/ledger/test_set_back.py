"""The clock is set back, perhaps while nothing runs: what waits is due as if it had not been."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.model import Target
from relay.ledger.due import due, give_up_duty, set_back, take_duty
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.outcomes import Outcome, settle
from tests.relay.ledger.rows import RECEIVED_AT, Policies, add_delivery, add_deploy, ask, sql

HOUR, YEAR = 3_600, 31_536_000
LEASE = 5.0
SECOND = 1_000_000


class Clock:
    """A wall clock that a test sets."""

    now = RECEIVED_AT

    def __call__(self) -> int:
        return round(self.now * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    prepare(tmp_path)
    opened = Ledger(tmp_path, full_sync=False, clock=clock)
    yield opened
    await opened.close()


async def takes_duty(ledger: Ledger, owner: str) -> bool:
    """Whether a process gets the duty of sweeping, as it takes it for real."""

    async def work(tx: object) -> bool:
        await set_back(tx, "sweep", LEASE)  # type: ignore[arg-type]
        return await take_duty(tx, "sweep", owner, LEASE)  # type: ignore[arg-type]

    return await ledger.commit(work)


@pytest.mark.parametrize("step", [HOUR, YEAR])
@pytest.mark.parametrize("is_stopped_before", [False, True])
async def test_what_waits_does_not_wait_for_the_old_clock(
    ledger: Ledger, clock: Clock, step: int, *, is_stopped_before: bool
) -> None:
    retried = await add_deploy(ledger, "a", "a")
    asked = await ask(ledger, retried)
    assert asked is not None
    again = Outcome(
        deploy=retried,
        claim=asked.claim,
        attempt=1,
        kind="retry",
        status="waiting",
        again_at=clock.now + 40,
    )
    await ledger.commit(lambda tx: settle(tx, again))
    assert await takes_duty(ledger, "killed")
    new = await add_deploy(ledger, "b", "b")
    delivery = await add_delivery(ledger, "c", "c")
    if is_stopped_before:
        await ledger.commit(lambda tx: give_up_duty(tx, "sweep", "killed"))

    clock.now -= step
    assert await takes_duty(ledger, "another")
    clock.now += LEASE + 1

    found = await ledger.glance(due)
    assert (found.deliveries, found.deploys) == ([delivery], [new])
    clock.now += 40
    found = await ledger.glance(due)
    assert set(found.deploys) == {new, retried}


async def test_a_call_in_flight_keeps_its_claim(ledger: Ledger, clock: Clock) -> None:
    called = await add_deploy(ledger, "a")
    assert await ask(ledger, called) is not None
    await takes_duty(ledger, "one")

    clock.now -= HOUR
    assert await takes_duty(ledger, "another")
    clock.now += HOUR

    assert await ask(ledger, called, "another claim") is None


async def test_a_rate_counts_calls_by_the_new_clock(
    ledger: Ledger, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rated = {"preset": "http", "url": "http://platform.example/", "rate": "1/1m"}
    monkeypatch.setattr(Policies, "_target", Target.model_validate(rated))
    await ask(ledger, await add_deploy(ledger, "a", "a"))
    await takes_duty(ledger, "one")

    clock.now -= HOUR
    await takes_duty(ledger, "one")
    asked = await ask(ledger, await add_deploy(ledger, "b", "b"))
    assert asked is not None
    assert not asked.claim
    [[wait]] = sql(tmp_path, "SELECT waits_until FROM deploy WHERE waits = 'rate'")

    assert 50 < wait / SECOND - clock.now < 70


async def test_a_duty_that_is_kept_is_nobody_elses(ledger: Ledger, clock: Clock) -> None:
    assert await takes_duty(ledger, "one")
    clock.now += 1
    assert not await takes_duty(ledger, "another")
    clock.now -= 10
    assert not await takes_duty(ledger, "another")
