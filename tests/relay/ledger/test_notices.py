"""Notices: told within the rate, summed up beyond it, once more where nobody knows."""

from __future__ import annotations

import itertools

from config.model import NoticeKind
from config.values import RateLimit
from relay.ledger.due import due
from relay.ledger.ledger import Ledger
from relay.ledger.notices import (
    AskedNotice,
    NewNotice,
    NoticeOutcome,
    SettledNotice,
    claim_notice,
    has_recovered,
    insert_notices,
    note_failing,
    settle_notice,
)
from relay.ledger.transaction import Transaction
from tests.relay.ledger.conftest import Clock

RATES = {"chat": RateLimit(2, 60)}
FAILURE: NoticeKind = "failure"
_claims = itertools.count()


async def insert(ledger: Ledger, *kinds: NoticeKind, notifier: str = "chat") -> list[int]:
    new = [NewNotice(notifier=notifier, kind=kind, deploy=1, body="{}") for kind in kinds]
    return await ledger.commit(lambda tx: insert_notices(tx, new))


async def ask(ledger: Ledger, number: int) -> AskedNotice:
    name = f"claim-{next(_claims)}"
    asked = await ledger.commit(lambda tx: claim_notice(tx, number, name, RATES))
    assert asked is not None
    return asked


async def tell(ledger: Ledger, asked: AskedNotice, **outcome: object) -> SettledNotice:
    told = NoticeOutcome(
        notice=asked.id,
        claim=asked.claim,
        **{"status": "sent", **outcome},  # type: ignore[arg-type]
    )
    return await ledger.commit(lambda tx: settle_notice(tx, told))


async def due_notices(ledger: Ledger) -> list[int]:
    return (await ledger.glance(due)).notices


async def test_notices_within_the_rate_are_told_by_themselves(ledger: Ledger) -> None:
    first, second = await insert(ledger, "failure", "recovery")
    assert await due_notices(ledger) == [first, second]

    asked = await ask(ledger, first)
    assert (asked.decision, asked.attempt, asked.more, asked.body) == ("call", 1, {}, "{}")
    assert (await tell(ledger, asked)).is_owner
    assert (await ask(ledger, second)).decision == "call"
    assert await due_notices(ledger) == []


async def test_the_first_one_over_the_rate_tells_how_many_more_there_were(
    ledger: Ledger, clock: Clock
) -> None:
    numbers = await insert(ledger, *[FAILURE] * 5, "approval")
    for number in numbers[:2]:
        await tell(ledger, await ask(ledger, number))
    clock.now += 10

    waiting = await ask(ledger, numbers[2])
    assert (waiting.decision, waiting.is_first_wait) == ("wait", True)
    assert waiting.until == clock.now + 50
    for number in numbers[3:]:
        assert (await ask(ledger, number)).decision == "summed"
    clock.now += 50
    asked = await ask(ledger, numbers[2])
    assert asked.decision == "call"
    assert asked.more == {"approval": 1, "failure": 2}
    assert not (await tell(ledger, asked)).tells_more
    assert await due_notices(ledger) == []
    clock.now += 60
    [last] = await insert(ledger, "failure")
    assert (await ask(ledger, last)).more == {}


async def test_what_comes_while_the_sum_is_sent_is_told_once_more(
    ledger: Ledger, clock: Clock
) -> None:
    numbers = await insert(ledger, *[FAILURE] * 3)
    for number in numbers[:2]:
        await tell(ledger, await ask(ledger, number))
    await ask(ledger, numbers[2])
    clock.now += 61
    asked = await ask(ledger, numbers[2])
    [late] = await insert(ledger, "held")
    assert (await ask(ledger, late)).decision == "summed"

    assert (await tell(ledger, asked)).tells_more
    again = await ask(ledger, numbers[2])
    assert (again.decision, again.is_told, again.more) == ("call", True, {"held": 1})
    assert not (await tell(ledger, again)).tells_more


async def test_a_notice_that_cannot_be_told_leaves_what_it_counted_to_the_next_one(
    ledger: Ledger, clock: Clock
) -> None:
    numbers = await insert(ledger, *[FAILURE] * 4)
    for number in numbers[:2]:
        await tell(ledger, await ask(ledger, number))
    await ask(ledger, numbers[2])
    await ask(ledger, numbers[3])
    clock.now += 61
    asked = await ask(ledger, numbers[2])
    assert asked.more == {"failure": 1}
    await tell(ledger, asked, status="failed", reason="HTTP 404")

    [next_one] = await insert(ledger, "failure")
    assert (await ask(ledger, next_one)).more == {"failure": 1}


async def test_a_retry_waits_and_counts_its_attempts(ledger: Ledger, clock: Clock) -> None:
    [number] = await insert(ledger, "failure")
    await tell(ledger, await ask(ledger, number), status="waiting", again_at=clock.now + 5)
    assert await due_notices(ledger) == []
    clock.now += 5
    assert (await ask(ledger, number)).attempt == 2


async def test_an_expired_claim_is_told_again_and_its_owner_has_no_say(
    ledger: Ledger, clock: Clock
) -> None:
    [number] = await insert(ledger, "failure")
    lost = await ask(ledger, number)
    assert await ledger.commit(lambda tx: claim_notice(tx, number, "too early", RATES)) is None
    clock.now += 61
    asked = await ask(ledger, number)
    assert (asked.decision, asked.attempt) == ("call", 2)
    assert not (await tell(ledger, lost)).is_owner
    assert (await tell(ledger, asked)).is_owner


async def test_a_notifier_that_is_gone_fails(ledger: Ledger) -> None:
    [number] = await insert(ledger, "failure", notifier="old")
    asked = await ask(ledger, number)
    assert (asked.decision, asked.reason) == (
        "failed",
        "relay.yaml no longer has this notifier",
    )


async def test_a_recovery_is_told_once(ledger: Ledger) -> None:
    async def work(tx: Transaction) -> list[bool]:
        await tx.run("insert_target", {"name": "web"})
        await tx.row("insert_ref", {"repository": "r", "name": "main"})
        await note_failing(tx, 1, 1, 7)
        await note_failing(tx, 1, 1, 8)
        return [await has_recovered(tx, 1, 1), await has_recovered(tx, 1, 1)]

    assert await ledger.commit(work) == [True, False]
