"""Sends a notice to its notifier. No deploy waits for it. It may be sent twice where an answer was
lost."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import msgspec

from config.errors import RelayError
from relay.audit import event_fields, log
from relay.events.gate import moment
from relay.events.ids import public_id
from relay.ledger.notices import (
    AskedNotice,
    NoticeOutcome,
    claim_notice,
    look_again_at_notice,
    notifier_of,
    settle_notice,
)
from relay.ledger.transaction import Transaction
from relay.notices import Messenger, Notice
from workers.deploy.run import CONFIG_PAUSE, new_claim
from workers.errors import CallFailed
from workers.platform.backoff import retry_after
from workers.platform.response import RETRYABLE, Answer
from workers.runtime import Project, Runtime

PAUSES = (5, 30, 120)
"""Seconds before each other attempt."""

LONGEST_PAUSE = 600
"""Seconds that a chat server's Retry-After is honoured for at most."""

TOTAL, CONNECT = 15, 5
"""Seconds that a call and its connection may take."""


async def run_notice(rt: Runtime, number: int) -> None:
    """Send a notice that is due. Raises LedgerUnavailable."""
    if not await _is_known(rt, number):
        return
    project, name = rt.project, new_claim()
    rates = {messenger.name: messenger.rate for messenger in project.messengers}

    async def work(tx: Transaction) -> AskedNotice | None:
        return await claim_notice(tx, number, name, rates)

    asked = await rt.ledger.commit(work)
    if asked is None:
        return
    notice = msgspec.json.decode(asked.body, type=Notice)
    fields = _fields(asked, notice)
    if asked.decision == "failed":
        log.error("notice.failed", reason=asked.reason, more=0, **fields)
    elif asked.decision == "summed":
        if not asked.is_told:
            log.warning("notice.held", **fields)
    elif asked.decision == "wait":
        if asked.is_first_wait:
            log.warning("notice.held", until=moment(asked.until), **fields)
    else:
        await _tell(rt, project, asked, notice, fields)


async def _is_known(rt: Runtime, number: int) -> bool:
    """Return False where this process cannot know whether a notice's notifier is gone, or new:
    relay.yaml has changed and is not read yet. Then the notice is looked at again soon."""
    names = {messenger.name for messenger in rt.project.messengers}
    if await rt.ledger.glance(partial(notifier_of, notice=number)) in {"", *names}:
        return True
    if await rt.reloading.is_current():
        return True
    await rt.ledger.commit(lambda tx: look_again_at_notice(tx, number, CONFIG_PAUSE))
    return False


async def _tell(
    rt: Runtime, project: Project, asked: AskedNotice, notice: Notice, fields: dict[str, Any]
) -> None:
    messenger = next(one for one in project.messengers if one.name == asked.notifier)
    started = time.monotonic()
    reason, helps, status, asked_seconds = await _call(rt, project, messenger, asked, notice)
    about = {
        **fields,
        "status": status,
        "ms": round((time.monotonic() - started) * 1000, 1),
        "more": sum(asked.more.values()),
    }
    outcome = NoticeOutcome(notice=asked.id, claim=asked.claim, status="sent")
    if reason:
        outcome = NoticeOutcome(notice=asked.id, claim=asked.claim, status="failed", reason=reason)
        if helps and asked.attempt <= len(PAUSES):
            seconds = max(PAUSES[asked.attempt - 1], min(asked_seconds or 0, LONGEST_PAUSE))
            again_at = time.time() + seconds
            outcome = msgspec.structs.replace(outcome, status="waiting", again_at=again_at)
    settled = await rt.ledger.commit(lambda tx: settle_notice(tx, outcome))
    if outcome.status == "sent":
        log.info("notice.sent", **about)
    elif outcome.status == "failed":
        log.error("notice.failed", reason=reason, **about)
    if settled.tells_more:
        rt.starter.wake_notices([asked.id])


async def _call(
    rt: Runtime, project: Project, messenger: Messenger, asked: AskedNotice, notice: Notice
) -> tuple[str, bool, int | None, float | None]:
    """Make the call. Return the reason of a failure, whether another try may help, the status, and
    the seconds of Retry-After."""
    try:
        call = messenger.call(
            notice,
            lambda ref: ref.reveal(),
            console=project.settings.console_url,
            more=asked.more,
            told=asked.is_told,
        )
        answer = await rt.client.call(
            call, idempotency_key=asked.idempotency_key, total=TOTAL, connect=CONNECT
        )
    except CallFailed as failure:
        return str(failure), True, None, None
    except RelayError as failure:
        return str(failure), False, None, None
    reason, helps = _judge(answer)
    pause = retry_after(answer.headers.get("Retry-After"), time.time())
    return reason, helps, answer.status, pause


def _judge(answer: Answer) -> tuple[str, bool]:
    if 200 <= answer.status < 300:
        return "", False
    return f"HTTP {answer.status}", answer.status in RETRYABLE


def _fields(asked: AskedNotice, notice: Notice) -> dict[str, Any]:
    return {
        "notice": public_id("notice", asked.id),
        "notifier": asked.notifier,
        "about": asked.kind,
        "delivery": notice.delivery,
        "source": notice.source,
        **event_fields(notice.event),
        "deploy": notice.deploy,
        "route": notice.route,
        "target": notice.target,
    }
