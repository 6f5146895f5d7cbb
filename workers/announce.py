"""Queues notices about a deploy, in the transaction of the change that they are about."""

from __future__ import annotations

import msgspec

from config.model import NoticeKind
from relay.events.gate import Expired, Wait, moment
from relay.events.ids import public_id
from relay.ledger.claims import Asked
from relay.ledger.notices import NewNotice, has_recovered, insert_notices, note_failing
from relay.ledger.outcomes import Outcome, Settled
from relay.ledger.transaction import Transaction
from relay.notices import Notice
from workers.runtime import Project


async def announce_decision(tx: Transaction, project: Project, asked: Asked) -> list[int]:
    """Queue the notices about a deploy that ended or waits for a person, and return their
    numbers."""
    if not project.messengers:
        return []
    if isinstance(asked.decision, Wait) and asked.decision.reason == "approval":
        if not asked.is_new_wait or asked.decision.until is None:
            return []
        reason = f"until {moment(asked.decision.until)}"
        return await _announce(tx, project, asked, "approval", reason)
    if asked.status == "uncertain":
        return await _announce(tx, project, asked, "held", asked.reason)
    if asked.status == "failed":
        reason = asked.reason
        if isinstance(asked.decision, Expired):
            reason = f"nobody approved it until {moment(asked.decision.at)}"
        return await _announce(tx, project, asked, "failure", reason)
    return []


async def announce_outcome(
    tx: Transaction, project: Project, asked: Asked, outcome: Outcome, settled: Settled
) -> list[int]:
    """Queue the notices about the outcome of a call, and return their numbers."""
    if not project.messengers or not settled.is_owner:
        return []
    if outcome.status == "uncertain":
        return await _announce(tx, project, asked, "held", outcome.reason)
    if outcome.status == "failed":
        return await _announce(tx, project, asked, "failure", outcome.reason)
    if outcome.status == "succeeded" and _recovery_is_told(project, asked):
        deploy = asked.deploy
        if await has_recovered(tx, deploy.target_number, deploy.ref_number):
            return await _announce(tx, project, asked, "recovery", "")
    return []


async def _announce(
    tx: Transaction, project: Project, asked: Asked, kind: NoticeKind, reason: str
) -> list[int]:
    deploy, line = asked.deploy, asked.deploy.line
    if kind in ("failure", "held") and _recovery_is_told(project, asked):
        await note_failing(tx, deploy.target_number, deploy.ref_number, line.id)
    notice = Notice(
        kind=kind,
        deploy=public_id("deploy", line.id),
        delivery=public_id("delivery", line.delivery),
        source=line.source,
        route=line.route,
        target=line.target,
        event=deploy.event,
        reason=reason,
    )
    body = msgspec.json.encode(notice).decode()
    return await insert_notices(
        tx,
        [
            NewNotice(notifier=messenger.name, kind=kind, deploy=line.id, body=body)
            for messenger in project.messengers
            if messenger.wants(kind, line.target, line.repo)
        ],
    )


def _recovery_is_told(project: Project, asked: Asked) -> bool:
    line = asked.deploy.line
    return any(
        messenger.wants("recovery", line.target, line.repo) for messenger in project.messengers
    )
