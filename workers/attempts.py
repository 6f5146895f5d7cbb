"""One attempt of a deploy: whether its call may be made, the call, and what its answer means.

Where a deploy stands is kept in its own RQ job: RQ's status and retries, our field ``calling``
while a call is under way, and ``waiting`` while none may be made.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError
from rq import Retry
from rq.job import Job

from config.model import Target
from relay import audit
from relay.attempts_kept import Exchange, Received
from relay.audit import log
from relay.errors import AuditUnavailable
from relay.identity import is_replay
from relay.planning import Call, Recipe
from relay.reading import iso
from relay.records import ATTEMPTS_FIELD, ENDLESS, JOB_PREFIX, WAITING_FIELD
from relay.tracing import begin
from workers.announcing import announce, announce_success
from workers.backoff import pause, retry_after
from workers.deploys import Deploy, identity_key, latest_key
from workers.errors import CallFailed, DeployFailed, DeployHeld
from workers.gate import Expired, Request, Superseded, Wait, decide, moment, probing, queueing
from workers.kept import keep, keep_cut_off
from workers.line import InLine
from workers.runtime import CALLING_FIELD, Runtime
from workers.standing import (
    TOO_MANY_REQUESTS,
    Lesson,
    Seen,
    learn,
    look,
    release_probe,
    take_probe,
)
from workers.turns import give_back, take_turn
from workers.verdict import Answer, Verdict, judge

UNAVAILABLE = 503
"""With a Retry-After the platform says, as with 429, that nobody shall call it before."""


async def attempt(
    rt: Runtime, task: Deploy, job: Job, number: int, fields: dict[str, Any]
) -> dict[str, Any] | Retry:
    """Make the call of attempt ``number``, unless it has to wait or need not be made any more.

    ``fields`` are the audit's, and get what the call tells. Returns what is known of the deploy, or
    RQ's Retry where it is to run again. Raises DeployFailed where it is not, and
    redis.exceptions.RedisError.
    """
    target = rt.project.targets.get(task.target)
    if target is None:
        raise DeployFailed("relay.yaml no longer has this target")
    seen = await look(rt, job.id, task, target)
    if seen.cancelled_by is not None:
        log.warning("deploy.cancelled", by=seen.cancelled_by, **fields)
        return {"cancelled_by": seen.cancelled_by}
    if seen.replay_of is not None and seen.fresh:
        log.info("deploy.replayed", replay_of=seen.replay_of, by=seen.requested_by, **fields)
    if seen.approved_by is not None and seen.waiting.startswith("approval"):
        log.info("deploy.approved", by=seen.approved_by, **fields)
    this = _Attempt(rt, task, job, target, rt.project.recipes[task.target], seen, number, fields)
    if seen.begun is not None:
        this.follow_cut_off(seen.begun)
    request = Request(
        job.id,
        _expires(seen.waiting),
        approved=seen.approved_by is not None,
        newest=seen.newest,
        ahead=seen.ahead,
    )
    decision = decide(request, target, seen.standing, time.time())
    if isinstance(decision, Superseded):
        log.info("deploy.superseded", by=decision.by, **fields)
        return {"superseded_by": decision.by}
    if isinstance(decision, Expired):
        raise DeployFailed(f"nobody approved it until {moment(decision.at)}")
    if isinstance(decision, Wait):
        return await this.wait(decision)
    call = this.plan()
    delay = await this.admission(probe=decision.probe)
    if delay is not None:
        return await this.wait(delay)
    return await this.make(call, probe=decision.probe)


@dataclass(slots=True)
class _Attempt:
    """What the steps of one attempt have in common."""

    rt: Runtime
    task: Deploy
    job: Job
    target: Target
    recipe: Recipe
    seen: Seen
    number: int
    fields: dict[str, Any]
    call: str = field(default_factory=lambda: uuid4().hex)
    """What the call is counted as. Not the attempt's number: whoever requeues a job has it begin at
    1 again."""

    def follow_cut_off(self, begun: int) -> None:
        """Be the attempt after the one that a crash cut off in its call. Raises DeployFailed where
        there is to be none."""
        # Whoever requeues the job has decided; the next run must not stop here again.
        self.rt.answered.add(self.job.id)
        self.fields["attempt"] = self.number = begun
        reason = f"attempt {begun} was cut off before its answer came"
        keep_cut_off(
            self.rt.along,
            self.job.id,
            attempt=begun,
            reason=reason,
            seconds=self._kept_for("uncertain"),
        )
        self._judge_uncertain(reason)
        self.fields["attempt"] = self.number = begun + 1
        # An attempt that a crash cut off has not been counted by RQ.
        self.job.number_of_retries = begun

    def plan(self) -> Call:
        """The call. Raises RelayError where the recipe does not fit the event."""
        task = self.task
        return self.recipe.plan(
            task.event,
            route=task.route,
            delivery=task.delivery,
            source=task.source,
            reveal=lambda ref: ref.reveal(),
        )

    async def admission(self, *, probe: bool) -> Wait | None:
        """What has to be had for a call: to be the probe where the breaker is open, and a turn."""
        rt, job, name = self.rt, self.job.id, self.task.target
        if probe and not await take_probe(rt, job, name, self.target):
            return probing(time.time())
        if not self.target.rate:
            return None
        admitted = False
        try:
            turn = await take_turn(
                rt.redis,
                name,
                self.target.rate,
                # Where only the newest of a branch counts, it inherits the turn of those before it.
                owner=latest_key(self.task) if self.target.newest_only else job,
                call=self.call,
                now=time.time(),
            )
            admitted = turn is None
        finally:
            if probe and not admitted:
                await release_probe(rt, name)
        return None if turn is None else queueing(turn, time.time())

    async def wait(self, wait: Wait) -> Retry:
        """Have RQ run the job again when the wait is over. That is no attempt."""
        until = None if wait.until is None else moment(wait.until)
        waiting = f"{wait.reason} {until or ''}"
        if waiting != self.seen.waiting:
            behind = {"behind": wait.behind} if wait.behind else {}
            log.info("deploy.waiting", reason=wait.reason, until=until, **behind, **self.fields)
            key = f"{JOB_PREFIX}{self.job.id}"
            await self.rt.send("HSET", key, WAITING_FIELD, waiting)
            if wait.reason == "approval":
                announce(self.rt, "approval", self.task, self.job.id, f"until {until}")
        # RQ's scheduler drops fractions of the due time.
        seconds = max(1, math.ceil(wait.look) - math.floor(time.time()))
        await self._stay_known(seconds)
        # RQ counts one more when it takes the Retry; the next run is to be the same attempt.
        self.job.number_of_retries = (self.job.number_of_retries or 0) - 1
        if self.target.concurrency == 1:
            return InLine(ENDLESS, seconds, self.seen.rank, wait.place)
        return Retry(max=ENDLESS, interval=seconds)

    async def _stay_known(self, seconds: int) -> None:
        """Count the window, in which the same deploy is made once and older ones are known as such,
        from when this one looks again, in so many ``seconds``."""
        known = seconds + max(1, int(self.target.window))
        latest = latest_key(self.task)
        keys = (identity_key(self.task), latest, f"{latest}:moves")
        await asyncio.gather(*(self.rt.send("EXPIRE", key, known) for key in keys))

    async def make(self, call: Call, *, probe: bool) -> dict[str, Any] | Retry:
        """Make the call and judge its answer."""
        rt, job, target, recipe = self.rt, self.job, self.target, self.recipe
        # A note that Redis took without saying so must not outlive a call that was never made.
        rt.answered.add(job.id)
        over = (WAITING_FIELD, "") if self.seen.waiting else ()
        note = (CALLING_FIELD, self.number, ATTEMPTS_FIELD, self.number, *over)
        try:
            await rt.send("HSET", f"{JOB_PREFIX}{job.id}", *note)
            log.info("deploy.attempted", method=call.method, **self._delay(), **self.fields)
            # Lines are written when this turn of the event loop ends; the call begins in the next
            # one. What the audit does not take is not done.
            await asyncio.sleep(0)
            audit.flush()
        except (RedisError, OSError, AuditUnavailable):
            await give_back(rt.redis, self.task.target, self.call)
            if probe:
                await release_probe(rt, self.task.target)
            raise
        rt.answered.discard(job.id)
        span = begin("deploy attempt", self.task.trace, method=call.method, **self.fields)
        if span.trace and rt.project.settings.otel_traceparent:
            call = replace(call, headers={**call.headers, "traceparent": span.trace})
        began, started = time.time(), time.monotonic()
        asked: float | None = None
        status: int | None = None
        answer: Answer | None = None
        try:
            answer = await rt.client.call(
                call, idempotency_key=job.id, total=target.timeout, connect=target.connect_timeout
            )
        except CallFailed as failure:
            verdict = Verdict("uncertain" if failure.uncertain else "retry", str(failure))
        except DeployFailed as failure:
            rt.answered.add(job.id)
            span.end(failed=True, outcome="failed")
            self._keep(call, None, Verdict("failed", str(failure)), began, started)
            if probe:
                await release_probe(rt, self.task.target)
            raise
        else:
            status = answer.status
            asked = retry_after(answer.headers.get("Retry-After"), time.time())
            verdict = judge(answer, recipe.success, recipe.deployment_id)
        self.fields |= {"status": status, "ms": _ms_since(started)}
        span.end(failed=verdict.outcome != "succeeded", outcome=verdict.outcome, status=status)
        self._keep(call, answer, verdict, began, started)
        seconds = _seconds(target.retry.retry_after_cap, asked)
        if seconds is None:
            seconds = math.ceil(pause(target.retry, self.number, random.random()))  # noqa: S311
        throttled = status == TOO_MANY_REQUESTS or (status == UNAVAILABLE and asked is not None)
        lesson = Lesson(verdict, status, seconds if throttled else None, probe)
        await learn(rt, self.task.target, target, self.seen.standing, lesson)
        if verdict.outcome == "succeeded":
            await announce_success(rt, self.task, job.id)
        # From here on nothing is awaited: a run that is cut off now must not look as if never
        # called.
        rt.answered.add(job.id)

        if verdict.outcome == "succeeded":
            log.info("deploy.succeeded", deployment_id=verdict.deployment_id, **self.fields)
            return {
                "status": status,
                "attempt": self.number,
                "deployment_id": verdict.deployment_id,
            }
        if verdict.outcome == "failed":
            raise DeployFailed(verdict.reason)
        if verdict.outcome == "uncertain":
            self._judge_uncertain(verdict.reason)
        self._check_attempts(verdict.reason)
        log.warning(
            "deploy.retry_scheduled",
            reason=verdict.reason,
            seconds=seconds,
            retry_after=asked is not None,
            **self.fields,
        )
        return Retry(max=target.retry.attempts, interval=seconds)

    def _keep(
        self, call: Call, answer: Answer | None, verdict: Verdict, began: float, started: float
    ) -> None:
        """Keep what was asked and answered for people."""
        task = self.task
        shown = self.recipe.show(
            call, task.event, route=task.route, delivery=task.delivery, source=task.source
        )
        received = None if answer is None else Received(answer.status, answer.headers, answer.body)
        keep(
            self.rt.along,
            self.job.id,
            Exchange(call, shown, task.event, received),
            seconds=self._kept_for(verdict.outcome),
            at=iso(began),
            attempt=self.number,
            outcome=verdict.outcome,
            reason=verdict.reason,
            ms=_ms_since(started),
        )

    def _kept_for(self, outcome: str) -> float:
        """Seconds for which attempts are kept: as long as their job, if it ends now."""
        if outcome == "succeeded":
            return self.target.window
        return max(self.target.window, self.rt.project.settings.dead_letter_ttl)

    def _delay(self) -> dict[str, float]:
        """Seconds from the delivery to the first call for it. A replay's delivery is an old one."""
        if self.number > 1 or self.seen.replay_of is not None or is_replay(self.task.delivery):
            return {}
        received_at = self.task.received_at
        return {"seconds": max(0, round(time.time() - received_at, 3))} if received_at else {}

    def _judge_uncertain(self, reason: str) -> None:
        """Tell of an attempt of which nobody knows whether the platform took it. Raises DeployHeld
        where it is not to be made again, or was the last."""
        policy = self.recipe.on_uncertain
        log.warning("deploy.uncertain", reason=reason, on_uncertain=policy, **self.fields)
        if policy == "hold":
            raise DeployHeld(
                f"{reason}; the platform may have deployed, so it is not called again without a "
                "human decision"
            )
        if self._was_last():
            raise DeployHeld(
                f"{reason}; attempt {self.number} was the last, and the platform may have deployed"
            )

    def _check_attempts(self, reason: str) -> None:
        """Raises DeployFailed where there is no next attempt."""
        if self._was_last():
            raise DeployFailed(f"{reason}; attempt {self.number} was the last")

    def _was_last(self) -> bool:
        return self.number >= self.target.retry.attempts


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)


def _expires(waiting: str) -> float:
    """Until when a deploy that was told to wait for approval does so; 0 where it was not."""
    reason, _, until = waiting.partition(" ")
    return datetime.fromisoformat(until).timestamp() if reason == "approval" else 0


def _seconds(cap: float, asked: float | None) -> int | None:
    """The pause a platform asked for, up to ``cap``, in the whole seconds that RQ counts in.

    RQ's scheduler drops fractions of the due time, so one second more keeps it from being early.
    """
    return None if asked is None else math.ceil(min(asked, cap)) + 1
