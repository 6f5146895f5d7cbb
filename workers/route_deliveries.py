"""Routing in a worker: queued deliveries become deploys, by the routes that this process has.

Our worker claims the new deploys in the same transaction as far as it has room for their calls,
which saves a commit on the way from a webhook to its call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from relay.audit import log
from relay.audit_fields import delivery_line
from relay.boot_clock import boot_seconds
from relay.errors import LedgerUnavailable
from relay.events.gate import REPLACED
from relay.events.ids import public_id
from relay.ledger.claims import Asked, claim
from relay.ledger.intake import RouteReason
from relay.ledger.queued_deliveries import (
    QueuedDelivery,
    Routed,
    WantedDeploy,
    postpone_delivery,
    queued_deliveries,
    route_delivery,
)
from relay.ledger.transaction import Transaction
from relay.routing import RouteDecision
from relay.tracing import begin
from workers.announce import announce_decision
from workers.deploy.lines import tell_superseded
from workers.deploy.run import new_claim
from workers.runtime import Project, Runtime

TOGETHER = 64
"""Deliveries that are read, and wait to be committed, at one moment."""

LOOKS, PAUSE = 3, 0.05
"""How often, and after how many seconds, a worker looks again at what others route. What is left
then is the sweep's."""

CRASH_PAUSE = 60
"""Seconds before a delivery is tried again that met an error of ours."""

_logger = logging.getLogger("workers")


class _Done(NamedTuple):
    routed: Routed | None
    claimed: Sequence[Asked]
    left: Sequence[int]
    """New deploys that were not claimed."""
    notices: Sequence[int]


async def route_deliveries(rt: Runtime, first: int, last: int) -> None:
    """Route the deliveries from ``first`` to ``last`` that wait for it. Running twice does no harm.

    Raises LedgerUnavailable.
    """
    for start in range(first, last + 1, TOGETHER):
        end = min(last, start + TOGETHER - 1)
        for _ in range(LOOKS):
            if await _route_range(rt, start, end):
                break
            await asyncio.sleep(PAUSE)


async def _route_range(rt: Runtime, first: int, last: int) -> bool:
    """Route what waits for it. Return whether nothing is left behind older deliveries of its ref,
    which another worker routes at this moment."""
    batch = await rt.ledger.glance(partial(queued_deliveries, first=first, last=last))
    results = await asyncio.gather(
        *(_route(rt, delivery) for delivery in batch), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return all(results)


async def _route(rt: Runtime, delivery: QueuedDelivery) -> bool:
    """Return whether it was this worker that routed it."""
    project = await rt.reloading.catch_up(delivery.config, delivery.received_at)
    try:
        return await _route_by(rt, project, delivery)
    except LedgerUnavailable:
        raise
    except Exception as error:
        _logger.exception("delivery %d met an error that was not foreseen", delivery.id)
        postponed = {"delivery": delivery.id, "seconds": CRASH_PAUSE}
        await rt.ledger.commit(lambda tx: postpone_delivery(tx, **postponed))
        reason = f"internal error ({type(error).__name__}), see the diagnostics"
        about = _line(delivery)
        log.warning("delivery.retry_scheduled", reason=reason, seconds=CRASH_PAUSE, **about)
        return True


async def _route_by(rt: Runtime, project: Project, delivery: QueuedDelivery) -> bool:
    span = begin("deliver", delivery.trace, **_traced(delivery))
    decisions = project.router.candidates(delivery.event, delivery.source)
    wanted = _wanted(project, decisions)
    reasons = [RouteReason(one.route.name, one.reason) for one in decisions if not one.matched]
    reserved, since = rt.starter.reserve(len(wanted)), boot_seconds()

    async def work(tx: Transaction) -> _Done:
        routed = await route_delivery(tx, delivery.id, wanted, reasons, span.trace)
        made = [deploy.id for deploy in routed.deploys if deploy.is_new] if routed else []
        asked = [await claim(tx, one, new_claim(), project.policies) for one in made[:reserved]]
        claimed = [one for one in asked if one is not None]
        notices = [
            number for one in claimed for number in await announce_decision(tx, project, one)
        ]
        return _Done(routed, claimed, made[reserved:], notices)

    try:
        routed, claimed, left, notices = await rt.ledger.commit(work)
    finally:
        rt.starter.release(reserved)
    if routed is None:
        return False
    span.end(deploys=len(routed.deploys))
    _tell(delivery, decisions, routed)
    for asked in claimed:
        rt.starter.follow(project, asked, since)
    rt.starter.wake_deploys(left)
    rt.starter.wake_notices(notices)
    return True


def _wanted(project: Project, decisions: Sequence[RouteDecision]) -> list[WantedDeploy]:
    """Return the deploys that the routes want. Two routes that make the same call of one target
    have equal keys, and the ledger finds the second one to be a duplicate."""
    return [
        WantedDeploy(
            target=name,
            route=decision.route.name,
            call_key=decision.route.name if project.recipes[name].names_route else "",
            newest_only=project.targets[name].newest_only,
        )
        for decision in decisions
        if decision.matched
        for name in decision.route.deploy
    ]


def _tell(
    delivery: QueuedDelivery,
    decisions: Sequence[RouteDecision],
    routed: Routed,
) -> None:
    fields = _line(delivery)
    if delivery.replay_of:
        replay_of = public_id("delivery", delivery.replay_of)
        log.info("delivery.replayed", replay_of=replay_of, by=delivery.requested_by, **fields)
    for decision in decisions:
        route = decision.route
        if not decision.matched:
            log.debug("route.skipped", route=route.name, reason=decision.reason, **fields)
            continue
        log.info(
            "route.matched",
            route=route.name,
            targets=list(route.deploy),
            paths_unknown=decision.paths_unknown,
            **fields,
        )
    if not routed.deploys:
        log.info("delivery.ignored", reason="no route wants it any more", **fields)
    for deploy in routed.deploys:
        log.info(
            "deploy.queued" if deploy.is_new else "deploy.duplicate",
            deploy=public_id("deploy", deploy.id),
            route=deploy.route,
            target=deploy.target,
            **fields,
        )
        for line in deploy.superseded:
            tell_superseded(line, deploy.id, REPLACED)


def _line(delivery: QueuedDelivery) -> dict[str, Any]:
    return delivery_line(
        delivery.id,
        delivery.source,
        delivery.event,
        remote=delivery.remote,
        config=delivery.config,
    )


def _traced(delivery: QueuedDelivery) -> dict[str, str]:
    event = delivery.event
    return {
        "delivery": public_id("delivery", delivery.id),
        "source": delivery.source,
        "kind": event.kind,
        "repo": event.repo,
        "ref": event.ref,
        "sha": event.sha,
    }
