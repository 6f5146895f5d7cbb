"""Notices in the ledger: queued with what they tell of, and told within their notifier's rate.

1. A notice is called by the owner of its claim only. A claim that ran out is made again: a message
   that comes twice is better than none.
2. The first notice over the rate waits for its turn. Those that come meanwhile are summed up: they
   are not told by themselves, and its message says how many more of which kind there were.
3. What came while that message was sent is told by one more message of the same notice.
4. A notice that cannot be told leaves what it counted to the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from config.model import NoticeKind
from config.values import RateLimit
from relay.events.ids import idempotency_key
from relay.ledger.rows import microseconds, seconds
from relay.ledger.transaction import Reader, Row, Transaction

CLAIM_SECONDS = 60.0
"""Seconds for which the claim of a notice holds; its call takes 15 at most."""

GONE = "relay.yaml no longer has this notifier"


class NewNotice(msgspec.Struct, frozen=True, kw_only=True):
    """One message for one notifier."""

    notifier: str
    kind: NoticeKind
    deploy: int
    body: str
    """JSON of relay.notices.Notice."""


class AskedNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a notice that asked to be told. Times are seconds since the Unix epoch."""

    id: int
    notifier: str
    kind: NoticeKind
    deploy: int
    body: str
    idempotency_key: str
    """What the notifier knows the calls of one message by."""
    decision: Literal["call", "wait", "summed", "failed"]
    claim: str = ""
    attempt: int = 0
    """Number of the call that may be made."""
    until: float = 0
    """When the claim ends; of ``wait`` when it is due."""
    more: Mapping[str, int] = {}
    """Of ``call``: how many notices of which kind its message counts."""
    is_told: bool = False
    """Its own news was told; the message is about the others."""
    is_first_wait: bool = False
    reason: str = ""
    """Of ``failed``."""


class NoticeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the call of a notice."""

    notice: int
    claim: str
    status: Literal["sent", "waiting", "failed"]
    reason: str = ""
    again_at: float = 0
    """Of ``waiting``: when it is called again, in seconds since the Unix epoch."""


class SettledNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger made of it."""

    is_owner: bool
    tells_more: bool = False
    """More came meanwhile, so the notice is called once more for them."""


async def insert_notices(tx: Transaction, notices: Sequence[NewNotice]) -> list[int]:
    """Queue notices and return their numbers. They are due at once."""
    numbers = []
    for notice in notices:
        columns = {**msgspec.structs.asdict(notice), "now": tx.now}
        numbers.append(await tx.insert("insert_notice", columns))
    return numbers


async def note_failing(tx: Transaction, target: int, ref: int, deploy: int) -> None:
    """Remember that the last deploy of a ref failed, so that its recovery is told."""
    await tx.run("insert_failing", {"target": target, "ref": ref, "deploy": deploy})


async def has_recovered(tx: Transaction, target: int, ref: int) -> bool:
    """Forget that a ref failed. Return whether it had: the recovery is told once."""
    return await tx.run("delete_failing", {"target": target, "ref": ref}) > 0


async def notifier_of(reader: Reader, notice: int) -> str:
    """Return the notifier of a notice; empty where there is no such notice."""
    row = await reader.row("notice", {"notice": notice})
    return row["notifier"] if row is not None else ""


async def look_again_at_notice(tx: Transaction, notice: int, pause: float) -> None:
    """Have a notice that is due looked at in so many seconds."""
    again_at = tx.now + microseconds(pause)
    await tx.run("look_again_at_notice", {"notice": notice, "look": again_at, "now": tx.now})


async def claim_notice(
    tx: Transaction, number: int, name: str, rates: Mapping[str, RateLimit]
) -> AskedNotice | None:
    """Decide on a notice that is due, and claim its call where the rate allows it.

    ``name`` is the claim, which nobody else uses; ``rates`` has the rate of each notifier of
    relay.yaml. Return None for a wake-up too many, and while the ledger is behind.
    """
    row = await tx.row("notice", {"notice": number})
    if row is None or row["next_at"] is None or row["next_at"] > tx.now or tx.is_behind:
        return None
    rate = rates.get(row["notifier"])
    if rate is None:
        await _end(tx, row, "failed", GONE)
        return _asked(row, "failed", reason=GONE)
    summing = await tx.row("summing_notice", {"notifier": row["notifier"]})
    if summing is not None and summing["id"] != number:
        await tx.run("sum_up_notice", {"notice": number})
        await _release(tx, row)
        return _asked(row, "summed")
    turn = await _turn(tx, row["notifier"], rate)
    if turn > tx.now:
        await tx.run("postpone_notice", {**_postponed(row, turn), "sums": 1})
        return _asked(row, "wait", until=seconds(turn), is_first_wait=not row["sums"])
    return await _call(tx, row, name, rate)


async def _turn(tx: Transaction, notifier: str, rate: RateLimit) -> int:
    """Return when the rate allows a call; 0 where it does now."""
    last = {"subject": _subject(notifier), "skip": rate.most - 1}
    row = await tx.row("rate_call_before", last)
    return row["at"] + microseconds(rate.seconds) if row is not None else 0


async def _call(tx: Transaction, row: Row, name: str, rate: RateLimit) -> AskedNotice:
    expires = tx.now + microseconds(CLAIM_SECONDS)
    claimed = {"notice": row["id"], "claim": name, "expires": expires, "now": tx.now}
    if not await tx.run("claim_notice", claimed):
        raise RuntimeError("a notice changed within the transaction that claimed it")
    counted = {
        "subject": _subject(row["notifier"]),
        "now": tx.now,
        "call": name,
        "before": tx.now - microseconds(rate.seconds),
    }
    await tx.run("delete_old_rate_calls", counted)
    await tx.run("insert_rate_call", counted)
    notices = {"notifier": row["notifier"], "notice": row["id"]}
    await tx.run("take_summed_notices", notices)
    kinds = await tx.rows("summed_kinds", notices)
    return _asked(
        row,
        "call",
        claim=name,
        attempt=row["attempt"] + 1,
        until=seconds(expires),
        more={kind["kind"]: int(kind["count"]) for kind in kinds},
    )


async def settle_notice(tx: Transaction, outcome: NoticeOutcome) -> SettledNotice:
    """Write what became of a call, if the claim is still the caller's."""
    row = await tx.row("notice", {"notice": outcome.notice})
    if row is None or row["status"] != "calling" or row["claim"] != outcome.claim:
        return SettledNotice(is_owner=False)
    if outcome.status == "waiting":
        again = {**_postponed(row, microseconds(outcome.again_at)), "reason": outcome.reason}
        await tx.run("postpone_notice", again)
        return SettledNotice(is_owner=True)
    if outcome.status == "failed":
        await _end(tx, row, "failed", outcome.reason)
        return SettledNotice(is_owner=True)
    notices = {"notifier": row["notifier"], "notice": row["id"]}
    await tx.run("tell_summed_notices", notices)
    if row["sums"] and await tx.row("untold_notice", notices) is not None:
        again = {**_postponed(row, tx.now), "is_told": 1, "attempt": 0}
        await tx.run("postpone_notice", again)
        return SettledNotice(is_owner=True, tells_more=True)
    await _end(tx, row, "sent", "")
    return SettledNotice(is_owner=True)


def _postponed(row: Row, next_at: int) -> dict[str, object]:
    return {
        "notice": row["id"],
        "sums": row["sums"],
        "is_told": row["is_told"],
        "attempt": row["attempt"],
        "reason": "",
        "next_at": next_at,
    }


async def _end(tx: Transaction, row: Row, status: str, reason: str) -> None:
    await tx.run("end_notice", {"notice": row["id"], "status": status, "reason": reason})
    await _release(tx, row)


async def _release(tx: Transaction, row: Row) -> None:
    await tx.run("release_summed_notices", {"notifier": row["notifier"], "notice": row["id"]})


def _subject(notifier: str) -> str:
    # A target's name has no slash.
    return f"notify/{notifier}"


def _asked(
    row: Row, decision: Literal["call", "wait", "summed", "failed"], **more: object
) -> AskedNotice:
    key = idempotency_key("notice", row["id"], row["created_at"])
    if row["is_told"]:
        # A further message of the notice; one that comes twice is better than none.
        key = f"{key}-{more.get('claim', '')}"
    return AskedNotice(
        id=row["id"],
        notifier=row["notifier"],
        kind=row["kind"],
        deploy=row["deploy"],
        body=row["body"],
        idempotency_key=key,
        decision=decision,
        is_told=bool(row["is_told"]),
        **more,  # type: ignore[arg-type]
    )
