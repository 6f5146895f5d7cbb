"""Outcomes: what became of a call, written by the owner of its claim, in one transaction with all
that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from config.policies import Breaker
from relay.events.deploy_life import LIFE, Status
from relay.events.gate import OVERTAKEN, Learnt, Lesson, learn
from relay.ledger.endings import after_end, supersede_older
from relay.ledger.rows import DeployLine, microseconds, seconds, target_state
from relay.ledger.transaction import Row, Transaction

OutcomeKind = Literal["succeeded", "failed", "retry", "uncertain", "uncalled"]
"""``uncalled``: the owner of the claim did not make the call after all."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call."""

    deploy: int
    claim: str
    attempt: int
    kind: OutcomeKind
    status: Status
    """Where the deploy goes: ``waiting`` where it is to be called again."""
    reason: str = ""
    again_at: float = 0
    """Of ``waiting``: when, in seconds since the Unix epoch."""
    counts: bool = True
    """The call uses up one of the target's attempts."""
    ms: float | None = None
    """Milliseconds until the answer."""
    http: int | None = None
    deployment_id: str = ""
    exchange: bytes | None = None
    """Request and answer for people, secrets redacted."""
    lesson: Lesson | None = None
    breaker: Breaker | None = None
    is_probe: bool = False
    subject: str = ""
    """The target's name, where its rate counted the call."""
    rate_at: int = 0


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger made of an outcome."""

    is_owner: bool
    """False where the claim had been lost: then nothing but the attempt's note was changed."""
    superseded: Sequence[DeployLine] = ()
    woken: Sequence[int] = ()
    learnt: Learnt | None = None
    target: int = 0
    ref: int = 0


async def settle(tx: Transaction, outcome: Outcome) -> Settled:
    """Write an outcome. Return ``is_owner`` false where another process judged the call
    meanwhile."""
    place = await tx.row("what_follows", {"deploy": outcome.deploy})
    if place is None or not await _write(tx, outcome, place):
        if await _was_written(tx, outcome):
            return Settled(is_owner=True)
        await tx.run("write_late_attempt", _attempt(outcome))
        return Settled(is_owner=False)
    await tx.run("write_attempt", _attempt(outcome))
    if outcome.kind == "uncalled" and outcome.rate_at:
        await tx.run(
            "delete_rate_call",
            {"subject": outcome.subject, "call": outcome.claim, "at": outcome.rate_at},
        )
    superseded: list[DeployLine] = []
    if outcome.status == "succeeded":
        superseded = await _succeed(tx, outcome.deploy, place)
    learnt = await _learn(tx, outcome, place)
    woken: list[int] = []
    if place["has_others"] or place["has_line"]:
        woken = await after_end(tx, place["target"], place["ref"])
    if learnt is not None and learnt.has_closed:
        for waits in ("probe", "breaker"):
            parameters = {"target": place["target"], "waits": waits, "now": tx.now}
            rows = await tx.rows("wake_all_that_wait_for", parameters)
            woken += [int(row["id"]) for row in rows]
    return Settled(
        is_owner=True,
        superseded=superseded,
        woken=woken,
        learnt=learnt,
        target=place["target"],
        ref=place["ref"],
    )


async def _write(tx: Transaction, outcome: Outcome, place: Row) -> bool:
    waits = outcome.status == "waiting"
    again_at = microseconds(outcome.again_at) if waits else None
    is_retry = waits and outcome.kind in ("retry", "uncertain")
    written = await tx.run(
        "write_outcome",
        {
            "deploy": outcome.deploy,
            "claim": outcome.claim,
            "attempt": outcome.attempt,
            "status": outcome.status,
            "waits": "retry" if is_retry else "",
            "until": again_at if is_retry else None,
            "reason": outcome.reason,
            "next_at": again_at,
            "ended_at": tx.now if LIFE[outcome.status].has_ended else None,
            "tries": place["tries"] - (0 if outcome.counts else 1),
            "http": outcome.http,
            "deployment_id": outcome.deployment_id,
            "confirmed": "call" if outcome.status == "succeeded" else "",
        },
    )
    return written == 1


async def _was_written(tx: Transaction, outcome: Outcome) -> bool:
    """Return whether this very outcome is there: a commit that was given up, because the disk did
    not answer in time, may have come through. The sweep wakes what it made due."""
    row = await tx.row("attempt_outcome", {"deploy": outcome.deploy, "number": outcome.attempt})
    return (
        row is not None
        and outcome.ms is not None
        and (row["outcome"], row["ms"]) == (outcome.kind, outcome.ms)
    )


async def _succeed(tx: Transaction, deploy: int, place: Row) -> list[DeployLine]:
    here = {
        "target": place["target"],
        "ref": place["ref"],
        "deploy": deploy,
        "pos": place["pos"],
        "state": place["state"],
        "call_key": place["call_key"],
    }
    await tx.run("write_live", here)
    if place["has_failures"]:
        await tx.run("overtake_failures", here)
    return await supersede_older(tx, deploy, OVERTAKEN) if place["has_others"] else []


async def _learn(tx: Transaction, outcome: Outcome, place: Row) -> Learnt | None:
    if outcome.lesson is None:
        return None
    before = target_state(place)
    learnt = learn(before, outcome.breaker, outcome.lesson, seconds(tx.now), probe=outcome.is_probe)
    if learnt.state != before:
        await tx.run(
            "write_target_state",
            {
                "target": place["target"],
                "limited_until": microseconds(learnt.state.limited_until),
                "failures": learnt.state.failures,
                "opened": learnt.state.opened,
                "open_until": microseconds(learnt.state.open_until),
            },
        )
    return learnt


def _attempt(outcome: Outcome) -> dict[str, object]:
    return {
        "deploy": outcome.deploy,
        "number": outcome.attempt,
        "ms": outcome.ms,
        "http": outcome.http,
        "outcome": outcome.kind,
        "reason": outcome.reason,
        "exchange": outcome.exchange,
    }
