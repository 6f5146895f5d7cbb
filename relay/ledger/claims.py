"""Claims: whether a deploy may be called now, and the note that its call begins. One transaction.

A claim is the only way to a call. It names its owner, counts the attempt and says until when the
owner has; the attempt's row is the note of the call. What was noted and has no outcome when the
claim runs out is uncertain, whatever became of its owner. A wall clock that jumps ends no claim: on
the machine where it was made it ends by the clock since the machine's boot, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from config.model import OnUncertain, Target
from relay.boot_clock import boot_id, boot_seconds
from relay.events.gate import Decision, Expired, Facts, Go, Superseded, Wait, decide
from relay.events.ids import idempotency_key
from relay.ledger.endings import after_end
from relay.ledger.rows import (
    Deploy,
    decode_event,
    deploy_line,
    microseconds,
    seconds,
    target_state,
)
from relay.ledger.transaction import Row, Transaction

CUT_OFF = "attempt {} was cut off before its answer came"
"""Why a call is uncertain whose claim ran out."""


class Policies(Protocol):
    """What relay.yaml says of targets, as the worker has it."""

    def target(self, name: str) -> Target | None:
        """Return the target of this name; None where relay.yaml no longer has it."""

    def on_uncertain(self, name: str, *, is_newest: bool) -> OnUncertain:
        """Return what follows a call to this target of which nobody knows whether it was taken."""

    def claim_seconds(self, name: str) -> float:
        """Return for how long a claim of this target holds: longer than its call can take."""


class Uncertain(NamedTuple):
    """The call of a claim that ran out."""

    attempt: int
    reason: str
    policy: OnUncertain


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a deploy that asked to be called."""

    deploy: Deploy
    decision: Decision | None
    """None where it was ended for another reason."""
    claim: str = ""
    """The claim, where the call may be made."""
    attempt: int = 0
    """The number of the call that may be made."""
    until: float = 0
    """When the claim ends, in seconds since the Unix epoch."""
    is_probe: bool = False
    rate_at: int = 0
    """When the call was counted against the target's rates; 0 where it was not."""
    uncertain: Uncertain | None = None
    """The call before it, which was cut off."""
    status: str = ""
    """What the deploy ended as, where it did."""
    reason: str = ""
    is_new_wait: bool = False
    """It waits for another reason than it did before."""
    woken: Sequence[int] = ()
    """Deploys that are due now."""


async def claim(tx: Transaction, number: int, name: str, policies: Policies) -> Asked | None:
    """Decide on a deploy that is due, and note its call where it may be made.

    ``name`` is the claim, which nobody else uses. Return None for a wake-up too many: the deploy is
    not due, or has ended. It is None, too, while the ledger is behind.
    """
    row = await tx.row("claim_facts", {"deploy": number})
    if row is None or row["next_at"] is None or row["next_at"] > tx.now or _is_held(row):
        return None
    if tx.is_behind:
        # It may have been called in the time that the ledger has forgotten.
        return None
    return await _Claim(tx, row, name, policies).run()


def _is_held(row: Row) -> bool:
    """Return whether the claim of a call has not run out, whatever the wall clock says."""
    if row["status"] != "calling" or not row["claim_boot"] or row["claim_boot"] != boot_id():
        return False
    return int(row["claim_boot_end"]) > microseconds(boot_seconds())


class _Claim:
    """One deploy that asks."""

    def __init__(self, tx: Transaction, row: Row, name: str, policies: Policies) -> None:
        self.tx = tx
        self.row = row
        self.name = name
        self.policies = policies
        self.deploy = _deploy(row)
        self.target = self.deploy.line.target
        self.tries = int(row["tries"])
        self.uncertain: Uncertain | None = None

    async def run(self) -> Asked:
        """Judge it, and write what follows."""
        policy = self.policies.target(self.target)
        if self.row["status"] == "calling":
            ended = await self._mark_cut_off(policy)
            if ended is not None:
                return ended
        if policy is None:
            return await self._end("failed", "relay.yaml no longer has this target")
        facts = await self._facts(policy)
        decision = decide(facts, policy, seconds(self.tx.now))
        if isinstance(decision, Go):
            return await self._call(decision, policy)
        if isinstance(decision, Wait):
            return await self._wait(decision)
        if isinstance(decision, Expired):
            return await self._end("failed", "nobody approved it in time", decision)
        if self.uncertain is not None:
            # The call that was cut off may have deployed, so a person has to look.
            reason = (
                f"{self.uncertain.reason}, and {decision.reason}: the platform may have deployed"
            )
            return await self._end("uncertain", reason, decision)
        return await self._end("superseded", decision.reason, decision)

    async def _mark_cut_off(self, policy: Target | None) -> Asked | None:
        """Mark the call whose claim ran out; end the deploy where it is not to be made again."""
        attempt = self.row["attempt"]
        reason = CUT_OFF.format(attempt)
        await self.tx.run(
            "mark_attempt_cut_off",
            {"deploy": self.deploy.line.id, "number": attempt, "reason": reason},
        )
        on_uncertain: OnUncertain = "hold"
        if policy is not None:
            on_uncertain = self.policies.on_uncertain(self.target, is_newest=self.deploy.is_newest)
        self.uncertain = Uncertain(attempt, reason, on_uncertain)
        if policy is None or on_uncertain == "hold":
            return await self._end("uncertain", f"{reason}; the platform may have deployed")
        if self.tries >= policy.retry.attempts:
            last = f"{reason}; it was the last, and the platform may have deployed"
            return await self._end("uncertain", last)
        return None

    async def _facts(self, policy: Target) -> Facts:
        row, tx = self.row, self.tx
        calls = await tx.row(
            "calls_of_target", {"target": row["target"], "deploy": self.deploy.line.id}
        )
        assert calls is not None  # noqa: S101 - an aggregate always has a row
        ahead, ahead_until = row["ahead"] or 0, 0.0
        if ahead:
            due = await tx.row("deploy_due_at", {"deploy": ahead})
            ahead_until = seconds(due["next_at"]) if due else 0.0
        rate_calls, place = await self._rates(policy)
        return Facts(
            deploy=self.deploy.line.id,
            target=target_state(row),
            approved=bool(row["approved_by"]),
            approval_until=seconds(row["approval_until"]),
            ended=row["pos"] < row["ended_pos"],
            newer=row["newer"] or 0,
            live=row["live_deploy"] if row["is_overtaken"] else 0,
            ahead=ahead,
            ahead_until=ahead_until,
            calling=calls["calling"],
            is_probed=calls["probes"] > 0,
            created_at=seconds(row["created_at"]),
            line_at=seconds(row["line_at"]),
            attempt=row["attempt"],
            rate_calls=rate_calls,
            rate_place=place,
        )

    async def _rates(self, policy: Target) -> tuple[list[float], int]:
        if not policy.rate:
            return [], 0
        made = []
        for rate in policy.rate:
            call = await self.tx.row(
                "rate_call_before", {"subject": self.target, "skip": rate.most - 1}
            )
            made.append(seconds(call["at"]) if call else 0.0)
        place = await self.tx.row(
            "place_in_line",
            {
                "target": self.row["target"],
                "line_at": self.row["line_at"],
                "deploy": self.deploy.line.id,
            },
        )
        return made, place["before"] if place else 0

    async def _call(self, go: Go, policy: Target) -> Asked:
        attempt = self.row["attempt"] + 1
        holds = microseconds(self.policies.claim_seconds(self.target))
        until = self.tx.now + holds
        noted: dict[str, Any] = {
            "deploy": self.deploy.line.id,
            "claim": self.name,
            "tries": self.tries + 1,
            "now": self.tx.now,
            "expires": until,
            "boot": boot_id(),
            "boot_end": microseconds(boot_seconds()) + holds,
            "probe": int(go.probe),
            "live": self.row["live_deploy"],
            "attempt": self.row["attempt"],
            "number": attempt,
        }
        if not await self.tx.run("claim_deploy", noted):
            raise RuntimeError("a deploy changed within the transaction that claimed it")
        await self.tx.run("insert_attempt", noted)
        if policy.rate:
            longest = max(rate.seconds for rate in policy.rate)
            counted = {
                "subject": self.target,
                "now": self.tx.now,
                "call": self.name,
                "before": self.tx.now - microseconds(longest),
            }
            await self.tx.run("delete_old_rate_calls", counted)
            await self.tx.run("insert_rate_call", counted)
        line = msgspec.structs.replace(self.deploy.line, attempt=attempt)
        return Asked(
            deploy=msgspec.structs.replace(self.deploy, line=line, tries=self.tries + 1),
            decision=go,
            claim=self.name,
            attempt=attempt,
            until=seconds(until),
            is_probe=go.probe,
            rate_at=self.tx.now if policy.rate else 0,
            uncertain=self.uncertain,
        )

    async def _wait(self, wait: Wait) -> Asked:
        row = self.row
        until = None if wait.until is None else microseconds(wait.until)
        asked = until if wait.reason == "approval" else row["approval_until"]
        await self.tx.run(
            "postpone_deploy",
            {
                "deploy": self.deploy.line.id,
                "waits": wait.reason,
                "until": until,
                "look": max(microseconds(wait.look), self.tx.now + 1),
                "approval_until": asked,
                "tries": self.tries,
                "reason": self.uncertain.reason if self.uncertain else "",
            },
        )
        # Nothing stands behind what waits for a person, or behind a claim that is given up.
        gives_way = wait.reason == "approval" or row["status"] == "calling"
        woken = await after_end(self.tx, row["target"], row["ref"]) if gives_way else []
        return Asked(
            deploy=self.deploy,
            decision=wait,
            uncertain=self.uncertain,
            is_new_wait=row["waits"] != wait.reason,
            woken=woken,
        )

    async def _end(
        self, status: str, reason: str, decision: Superseded | Expired | None = None
    ) -> Asked:
        by = decision.by if isinstance(decision, Superseded) else 0
        await self.tx.run(
            "end_deploy",
            {
                "deploy": self.deploy.line.id,
                "status": status,
                "reason": reason,
                "by": by or None,
                "now": self.tx.now,
            },
        )
        return Asked(
            deploy=self.deploy,
            decision=decision,
            uncertain=self.uncertain,
            status=status,
            reason=reason,
            woken=await after_end(self.tx, self.row["target"], self.row["ref"]),
        )


def _deploy(row: Row) -> Deploy:
    return Deploy(
        line=deploy_line(row),
        event=decode_event(row["event"]),
        target_number=row["target"],
        ref_number=row["ref"],
        status=row["status"],
        received_at=seconds(row["received_at"]),
        trace=row["trace"],
        tries=row["tries"],
        waits=row["waits"],
        replay_of=row["replay_of"] or 0,
        requested_by=row["requested_by"],
        approved_by=row["approved_by"],
        is_newest=row["pos"] >= row["newest_pos"],
        call_key=row["call_key"],
        idempotency_key=idempotency_key("deploy", row["id"], row["created_at"]),
    )
