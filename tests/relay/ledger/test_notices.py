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


async def insert(clocked_ledger: Ledger, *kinds: NoticeKind, notifier: str = "chat") -> list[int]:
    new = [NewNotice(notifier=notifier, kind=kind, deploy=1, body="{}") for kind in kinds]
    return await clocked_ledger.commit(lambda tx: insert_notices(tx, new))


async def ask(clocked_ledger: Ledger, number: int) -> AskedNotice:
    name = f"claim-{next(_claims)}"
    asked = await clocked_ledger.commit(lambda tx: claim_notice(tx, number, name, RATES))
    assert asked is not None
    return asked


async def tell(clocked_ledger: Ledger, asked: AskedNotice, **outcome: object) -> SettledNotice:
    told = NoticeOutcome(
        notice=asked.id,
        claim=asked.claim,
        **{"status": "sent", **outcome},  # type: ignore[arg-type]
    )
    return await clocked_ledger.commit(lambda tx: settle_notice(tx, told))


async def due_notices(clocked_ledger: Ledger) -> list[int]:
    return (await clocked_ledger.glance(due)).notices


async def test_notices_within_the_rate_are_told_by_themselves(clocked_ledger: Ledger) -> None:
    first, second = await insert(clocked_ledger, "failure", "recovery")
    assert await due_notices(clocked_ledger) == [first, second]

    asked = await ask(clocked_ledger, first)
    assert (asked.decision, asked.attempt, asked.more, asked.body) == ("call", 1, {}, "{}")
    assert (await tell(clocked_ledger, asked)).is_owner
    assert (await ask(clocked_ledger, second)).decision == "call"
    assert await due_notices(clocked_ledger) == []


async def test_the_first_one_over_the_rate_tells_how_many_more_there_were(
    clocked_ledger: Ledger, clock: Clock
) -> None:
    numbers = await insert(clocked_ledger, *[FAILURE] * 5, "approval")
    for number in numbers[:2]:
        await tell(clocked_ledger, await ask(clocked_ledger, number))
    clock.now += 10

    waiting = await ask(clocked_ledger, numbers[2])
    assert (waiting.decision, waiting.is_first_wait) == ("wait", True)
    assert waiting.until == clock.now + 50
    for number in numbers[3:]:
        assert (await ask(clocked_ledger, number)).decision == "summed"
    clock.now += 50
    asked = await ask(clocked_ledger, numbers[2])
    assert asked.decision == "call"
    assert asked.more == {"approval": 1, "failure": 2}
    assert not (await tell(clocked_ledger, asked)).tells_more
    assert await due_notices(clocked_ledger) == []
    clock.now += 60
    [last] = await insert(clocked_ledger, "failure")
    assert (await ask(clocked_ledger, last)).more == {}


async def test_what_comes_while_the_sum_is_sent_is_told_once_more(
    clocked_ledger: Ledger, clock: Clock
) -> None:
    numbers = await insert(clocked_ledger, *[FAILURE] * 3)
    for number in numbers[:2]:
        await tell(clocked_ledger, await ask(clocked_ledger, number))
    await ask(clocked_ledger, numbers[2])
    clock.now += 61
    asked = await ask(clocked_ledger, numbers[2])
    [late] = await insert(clocked_ledger, "held")
    assert (await ask(clocked_ledger, late)).decision == "summed"

    assert (await tell(clocked_ledger, asked)).tells_more
    again = await ask(clocked_ledger, numbers[2])
    assert (again.decision, again.is_told, again.more) == ("call", True, {"held": 1})
    assert not (await tell(clocked_ledger, again)).tells_more


async def test_a_notice_that_cannot_be_told_leaves_what_it_counted_to_the_next_one(
    clocked_ledger: Ledger, clock: Clock
) -> None:
    numbers = await insert(clocked_ledger, *[FAILURE] * 4)
    for number in numbers[:2]:
        await tell(clocked_ledger, await ask(clocked_ledger, number))
    await ask(clocked_ledger, numbers[2])
    await ask(clocked_ledger, numbers[3])
    clock.now += 61
    asked = await ask(clocked_ledger, numbers[2])
    assert asked.more == {"failure": 1}
    await tell(clocked_ledger, asked, status="failed", reason="HTTP 404")

    [next_one] = await insert(clocked_ledger, "failure")
    assert (await ask(clocked_ledger, next_one)).more == {"failure": 1}


async def test_a_retry_waits_and_counts_its_attempts(clocked_ledger: Ledger, clock: Clock) -> None:
    [number] = await insert(clocked_ledger, "failure")
    await tell(
        clocked_ledger, await ask(clocked_ledger, number), status="waiting", again_at=clock.now + 5
    )
    assert await due_notices(clocked_ledger) == []
    clock.now += 5
    assert (await ask(clocked_ledger, number)).attempt == 2


async def test_an_expired_claim_is_told_again_and_its_owner_has_no_say(
    clocked_ledger: Ledger, clock: Clock
) -> None:
    [number] = await insert(clocked_ledger, "failure")
    lost = await ask(clocked_ledger, number)
    assert (
        await clocked_ledger.commit(lambda tx: claim_notice(tx, number, "too early", RATES)) is None
    )
    clock.now += 61
    asked = await ask(clocked_ledger, number)
    assert (asked.decision, asked.attempt) == ("call", 2)
    assert not (await tell(clocked_ledger, lost)).is_owner
    assert (await tell(clocked_ledger, asked)).is_owner


async def test_a_notifier_that_is_gone_fails(clocked_ledger: Ledger) -> None:
    [number] = await insert(clocked_ledger, "failure", notifier="old")
    asked = await ask(clocked_ledger, number)
    assert (asked.decision, asked.reason) == (
        "failed",
        "relay.yaml no longer has this notifier",
    )


async def test_a_recovery_is_told_once(clocked_ledger: Ledger) -> None:
    async def work(tx: Transaction) -> list[bool]:
        await tx.run("insert_target", {"name": "web"})
        await tx.row("insert_ref", {"repository": "r", "name": "main"})
        await note_failing(tx, 1, 1, 7)
        await note_failing(tx, 1, 1, 8)
        return [await has_recovered(tx, 1, 1), await has_recovered(tx, 1, 1)]

    assert await clocked_ledger.commit(work) == [True, False]
