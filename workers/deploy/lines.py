"""Writes the audit lines of a deploy: one for each step, after the commit of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.audit import log
from relay.audit_fields import deploy_fields
from relay.events.gate import Expired, Superseded, Wait, moment
from relay.events.ids import public_id
from relay.ledger.claims import Asked
from relay.ledger.outcomes import Settled
from relay.ledger.rows import DeployLine
from workers.deploy.call import CallResult
from workers.deploy.judge import JudgedCall


def tell_decision(asked: Asked) -> None:
    """Write the lines about the decision on a deploy that was due."""
    deploy = asked.deploy
    fields = deploy_fields(deploy.line)
    if asked.claim and asked.attempt == 1:
        if deploy.replay_of:
            replay_of = public_id("deploy", deploy.replay_of)
            log.info("deploy.replayed", replay_of=replay_of, by=deploy.requested_by, **fields)
        if deploy.approved_by:
            log.info("deploy.approved", by=deploy.approved_by, **fields)
    if asked.uncertain is not None:
        attempt, reason, policy = asked.uncertain
        about = {**fields, "attempt": attempt}
        log.warning("deploy.uncertain", reason=reason, on_uncertain=policy, **about)
    if asked.status == "superseded":
        by = asked.decision.by if isinstance(asked.decision, Superseded) else 0
        tell_superseded(deploy.line, by, asked.reason)
    elif asked.status:
        reason = asked.reason
        if isinstance(asked.decision, Expired):
            reason = f"nobody approved it until {moment(asked.decision.at)}"
        log.error("deploy.failed", reason=reason, **fields)
    elif isinstance(asked.decision, Wait) and asked.is_new_wait:
        _tell_wait(asked.decision, fields)


def _tell_wait(wait: Wait, fields: dict[str, Any]) -> None:
    if wait.reason == "slot":
        # Waits for a slot are short and frequent at a busy target.
        return
    behind = {"behind": public_id("deploy", wait.behind)} if wait.behind else {}
    until = None if wait.until is None else moment(wait.until)
    log.info("deploy.waiting", reason=wait.reason, until=until, **behind, **fields)


def tell_superseded(line: DeployLine, by: int, reason: str) -> None:
    """Write that a deploy ended because of a newer one, ``by``, or because its ref ended."""
    newer = public_id("deploy", by) if by else ""
    log.info("deploy.superseded", by=newer, reason=reason, **deploy_fields(line))


def tell_outcome(asked: Asked, result: CallResult, judged: JudgedCall, settled: Settled) -> None:
    """Write the lines about the outcome of a call."""
    outcome = judged.outcome
    fields = {**deploy_fields(asked.deploy.line), "status": result.status, "ms": result.ms}
    if not settled.is_owner:
        reason = outcome.reason or f"HTTP {result.status}"
        log.warning("deploy.answered_late", outcome=outcome.kind, reason=reason, **fields)
        return
    _tell_target(asked.deploy.line.target, result.verdict.reason, settled)
    if outcome.status == "succeeded":
        log.info("deploy.succeeded", deployment_id=outcome.deployment_id, **fields)
        tell_overtaken(settled.superseded, asked.deploy.line.id)
        return
    if judged.on_uncertain is not None:
        log.warning(
            "deploy.uncertain",
            reason=result.verdict.reason,
            on_uncertain=judged.on_uncertain,
            **fields,
        )
    if outcome.status == "waiting":
        log.warning(
            "deploy.retry_scheduled",
            reason=result.verdict.reason,
            seconds=judged.seconds,
            retry_after=result.asked_seconds is not None,
            **fields,
        )
    else:
        log.error("deploy.failed", reason=outcome.reason, **fields)


def tell_overtaken(lines: Sequence[DeployLine], by: int) -> None:
    """Write which older deploys ended, because a newer one went live."""
    for line in lines:
        tell_superseded(line, by, "a newer state of its ref is live there")


def tell_failure(asked: Asked, reason: str) -> None:
    """Write that no call could be made."""
    log.error("deploy.failed", reason=reason, **deploy_fields(asked.deploy.line))


def tell_uncalled(asked: Asked, reason: str, seconds: float) -> None:
    """Write that the call was not made and will be made in ``seconds``."""
    fields = deploy_fields(asked.deploy.line)
    log.warning(
        "deploy.retry_scheduled", reason=reason, seconds=seconds, retry_after=False, **fields
    )


def _tell_target(name: str, reason: str, settled: Settled) -> None:
    learnt = settled.learnt
    if learnt is None:
        return
    state = learnt.state
    if learnt.is_limited:
        until = moment(state.limited_until)
        log.warning("target.held", target=name, reason=reason, until=until)
    if learnt.has_opened:
        log.error("target.opened", target=name, reason=reason, until=moment(state.open_until))
    if learnt.has_closed:
        log.info("target.closed", target=name)
