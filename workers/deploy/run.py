"""One run of a deploy: claim, call, judge, settle. The one place that leads to a call.

The claim and the note of its call are one commit before the call; only the claim's owner writes the
outcome. A call without an outcome becomes uncertain: this process writes that, or the process that
finds the expired claim.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import TypeVar
from uuid import uuid4

from config.errors import RelayError
from relay import audit
from relay.audit import log
from relay.audit_fields import deploy_fields
from relay.boot_clock import boot_seconds
from relay.errors import AuditUnavailable, LedgerUnavailable
from relay.events.gate import Wait
from relay.ledger.claims import Asked, claim
from relay.ledger.ledger import Work
from relay.ledger.outcomes import Outcome, Settled, is_settled, settle
from relay.ledger.targets import look_again_at_deploy, target_of_deploy
from relay.ledger.transaction import Transaction
from workers.announce import announce_decision, announce_outcome
from workers.deploy.call import CallResult, make_call, plan
from workers.deploy.flight import Flight
from workers.deploy.judge import JudgedCall, judge_result, uncalled, unplannable
from workers.deploy.lines import (
    tell_decision,
    tell_failure,
    tell_outcome,
    tell_uncalled,
)
from workers.policies import margins
from workers.runtime import Project, Runtime

AUDIT_PAUSE = 5
"""Seconds before a call is tried again that the audit did not take."""

CRASH_PAUSE = 60
"""Seconds before a deploy is tried again that met an error of ours."""

CONFIG_PAUSE = 5
"""Seconds before a deploy is looked at again whose target this process does not know yet."""

LONGEST_PAUSE = 1.0
"""Seconds between two tries to write an outcome."""

T = TypeVar("T")

_logger = logging.getLogger("workers")


def new_claim() -> str:
    """Return the name of a claim. Nobody else uses it."""
    return uuid4().hex


async def run_deploy(rt: Runtime, number: int, flight: Flight | None = None) -> None:
    """Claim a deploy that is due, call its target and write the outcome; do nothing where it is not
    due or has ended. Raises LedgerUnavailable where nothing was claimed."""
    project = await _project(rt, number)
    if project is None:
        return
    name, since = new_claim(), boot_seconds()

    async def work(tx: Transaction) -> tuple[Asked | None, Sequence[int]]:
        asked = await claim(tx, number, name, project.policies)
        return asked, await announce_decision(tx, project, asked) if asked else ()

    asked, notices = await rt.ledger.commit(work)
    rt.starter.wake_notices(notices)
    if asked is not None:
        await follow_claim(rt, project, asked, since, flight or Flight())


async def _project(rt: Runtime, number: int) -> Project | None:
    """Return relay.yaml as a deploy has to be judged by it.

    This process may not have read yet what another one made the deploy by. Return None where it
    cannot know whether the target is gone, or new: then the deploy is looked at again soon.
    """
    wanted = await rt.ledger.glance(partial(target_of_deploy, deploy=number))
    if wanted is None:
        return None
    project = await rt.reloading.catch_up(wanted.config, wanted.received_at)
    if wanted.name in project.targets or await rt.reloading.is_current():
        return project
    _logger.warning("deploy-%d waits: relay.yaml has changed and is not read yet", number)
    await rt.ledger.commit(lambda tx: look_again_at_deploy(tx, number, CONFIG_PAUSE))
    return None


async def follow_claim(
    rt: Runtime, project: Project, asked: Asked, since: float, flight: Flight
) -> None:
    """Do what was decided on a deploy. ``since`` is when its claim was asked for, by
    boot_seconds()."""
    tell_decision(asked)
    rt.starter.wake_deploys(asked.woken)
    if isinstance(asked.decision, Wait):
        rt.starter.wake_deploy_at(asked.deploy.line.id, asked.decision.look)
    if not asked.claim:
        return
    run = _Run(rt, project, asked, since, flight)
    try:
        await run.call()
    except Exception as error:
        _logger.exception("deploy %d met an error that was not foreseen", asked.deploy.line.id)
        await run.give_up(f"internal error ({type(error).__name__}), see the diagnostics")


class _Run:
    """What the steps of one call have in common."""

    def __init__(
        self, rt: Runtime, project: Project, asked: Asked, since: float, flight: Flight
    ) -> None:
        self.rt = rt
        self.project = project
        self.asked = asked
        self.target = project.targets[asked.deploy.line.target]
        self.until = since + margins()[0]
        self.flight = flight
        self.was_called = False

    async def call(self) -> None:
        """Make the call and write its outcome."""
        asked = self.asked
        try:
            call = plan(self.project, asked)
        except (RelayError, LookupError) as error:
            reason = str(error)
            await self._settle(unplannable(asked, reason))
            tell_failure(asked, reason)
            return
        if boot_seconds() > self.until:
            await self._leave("the worker was stopped for too long before the call", 0)
            return
        self._tell_attempt(call.method)
        try:
            # Lines are written when this turn of the event loop ends, for all that call then.
            await asyncio.sleep(0)
            audit.flush()
        except AuditUnavailable as error:
            await self._leave(str(error), AUDIT_PAUSE)
            return
        if boot_seconds() > self.until:
            await self._leave("the worker was stopped for too long before the call", 0)
            return
        self.was_called = True
        result = await make_call(self.rt.client, self.project, asked, call, self.flight)
        await self._finish(result)

    async def give_up(self, reason: str) -> None:
        """Write the outcome of a run that met an internal error."""
        if self.was_called:
            # The call becomes uncertain when its claim expires.
            return
        await self._leave(reason, CRASH_PAUSE)

    def _tell_attempt(self, method: str) -> None:
        deploy = self.asked.deploy
        is_replayed = bool(deploy.replay_of or deploy.requested_by)
        delay = {}
        if self.asked.attempt == 1 and not is_replayed and deploy.received_at:
            delay = {"seconds": max(0, round(time.time() - deploy.received_at, 3))}
        log.info("deploy.attempted", method=method, **delay, **deploy_fields(deploy.line))

    async def _finish(self, result: CallResult) -> None:
        asked, name = self.asked, self.asked.deploy.line.target
        judge = partial(
            judge_result,
            asked,
            self.target,
            result,
            now=time.time(),
            chance=random.random(),  # noqa: S311
        )
        on_uncertain = partial(self.project.policies.on_uncertain, name)

        async def work(tx: Transaction) -> tuple[JudgedCall, Settled, Sequence[int]]:
            is_newest = asked.deploy.is_newest
            if result.verdict.outcome == "uncertain":
                row = await tx.row("is_newest_state", {"deploy": asked.deploy.line.id})
                is_newest = bool(row and row["is_newest"])
            judged = judge(on_uncertain=on_uncertain(is_newest=is_newest))
            settled = await settle(tx, judged.outcome)
            announced = await announce_outcome(tx, self.project, asked, judged.outcome, settled)
            return judged, settled, announced

        judged, settled, notices = await self._commit(work)
        tell_outcome(asked, result, judged, settled)
        self.rt.starter.wake_notices(notices)
        self._wake(judged.outcome, settled)

    async def _leave(self, reason: str, seconds: float) -> None:
        """Release the claim of a call that was not made; it is made later."""
        outcome = uncalled(self.asked, reason, time.time() + seconds)
        settled = await self._settle(outcome)
        if settled.is_owner:
            tell_uncalled(self.asked, reason, seconds)

    async def _settle(self, outcome: Outcome) -> Settled:

        async def work(tx: Transaction) -> tuple[Settled, Sequence[int]]:
            settled = await settle(tx, outcome)
            announced = await announce_outcome(tx, self.project, self.asked, outcome, settled)
            return settled, announced

        settled, notices = await self._commit(work)
        self.rt.starter.wake_notices(notices)
        self._wake(outcome, settled)
        return settled

    def _wake(self, outcome: Outcome, settled: Settled) -> None:
        starter = self.rt.starter
        starter.wake_deploys(settled.woken)
        if settled.is_owner and outcome.status == "waiting":
            starter.wake_deploy_at(outcome.deploy, outcome.again_at)

    async def _commit(self, work: Work[T]) -> T:
        """Commit an outcome. It is the only trace of a call, so it is tried until it succeeds."""
        pause = 0.05
        line, done = self.asked.deploy.line, list[T]()

        async def once(tx: Transaction) -> T:
            # A commit that did not answer in time may be on the disk all the same.
            if done and await is_settled(tx, line.id, self.asked.attempt):
                return done[-1]
            done.append(await work(tx))
            return done[-1]

        while True:
            try:
                return await self.rt.ledger.commit(once)
            except LedgerUnavailable as error:
                if pause == 0.05:
                    _logger.warning("an outcome waits to be written: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
