"""The two jobs: ``deliver`` turns a delivery into deploys, ``deploy`` makes one call.

They are coroutines, which any rq worker runs. Where a job stands is kept in its own RQ job: RQ's
status and retries, and our field ``calling`` while a call is under way.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
from redis.exceptions import RedisError
from rq import Retry, get_current_job
from rq.job import Job

from config.errors import RelayError
from config.model import Target
from relay.audit import delivery_fields, event_fields, log
from relay.events import Delivery
from relay.identity import is_replay
from relay.planning import Recipe
from relay.records import (
    ATTEMPTS_FIELD,
    CANCELLED_BY_FIELD,
    JOB_PREFIX,
    REPLAY_OF_FIELD,
    REQUESTED_BY_FIELD,
    RETRY_INTERVALS,
)
from workers.backoff import pause, retry_after
from workers.deploys import Deploy, Wanted
from workers.ends import crashed
from workers.errors import CallFailed, DeployFailed, DeployHeld
from workers.gate import Go, Superseded, Wait, decide, moment, probing
from workers.runtime import CALLING_FIELD, Runtime, runtime
from workers.standing import (
    TOO_MANY_REQUESTS,
    WAITING_FIELD,
    Lesson,
    learn,
    look,
    take_probe,
)
from workers.verdict import Verdict, judge

UNAVAILABLE = 503
"""With a Retry-After the platform says, as with 429, that nobody shall call it before."""


_ENDLESS = sys.maxsize
"""RQ wants to know how often a job may wait."""


async def deliver(raw: str) -> list[str]:
    """Match one delivery against the routes and queue a deploy job for each call.

    Running twice does no harm: deploys that were queued the first time are duplicates the second.
    Returns the ids of the deploy jobs.
    """
    fields: dict[str, Any] | None = None
    try:
        delivery = msgspec.json.decode(raw, type=Delivery)
        fields = delivery_fields(delivery)
        return await _deliver(delivery, fields)
    except Exception as error:
        crashed(_job(), error, fields)
        raise


async def _deliver(delivery: Delivery, fields: dict[str, Any]) -> list[str]:
    async with runtime() as rt:
        key = f"{JOB_PREFIX}{delivery.id}"
        if is_replay(delivery.id):
            old, by = await rt.send("HMGET", key, REPLAY_OF_FIELD, REQUESTED_BY_FIELD)
            log.info("delivery.replayed", replay_of=_text(old), by=_text(by), **fields)
        project = await rt.reloading.catch_up(delivery.config, delivery.received_at)
        wanted: list[tuple[Deploy, Target]] = []
        for decision in project.router.candidates(delivery.event, delivery.source):
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
            wanted += [
                (
                    Deploy(delivery.id, delivery.source, route.name, name, delivery.event),
                    project.targets[name],
                )
                for name in route.deploy
            ]
        queued = await rt.deploys.submit(Wanted(delivery.id, wanted))
        if any(deploy.cancelled for deploy in queued):
            by = await rt.send("HGET", key, CANCELLED_BY_FIELD)
            log.warning("delivery.cancelled", by=_text(by), **fields)
            return []
    if not queued:
        log.info("delivery.ignored", reason="no route wants it any more", **fields)
    for deploy, job, duplicate, _ in queued:
        step = "deploy.duplicate" if duplicate else "deploy.queued"
        log.info(step, deploy=job, route=deploy.route, target=deploy.target, **fields)
    return [job for _, job, *_ in queued]


async def deploy(raw: str) -> dict[str, Any] | Retry:
    """Make one deploy call and judge its answer.

    Returns what is known of the deploy, or RQ's Retry where another attempt shall be made. Raises
    DeployFailed where none shall; the job then rests in RQ's failed registry.
    """
    job = _job()
    fields: dict[str, Any] | None = None
    try:
        task = msgspec.json.decode(raw, type=Deploy)
        attempt = (job.number_of_retries or 0) + 1
        fields = {
            "delivery": task.delivery,
            "source": task.source,
            **event_fields(task.event),
            "deploy": job.id,
            "route": task.route,
            "target": task.target,
            "attempt": attempt,
        }
        async with runtime() as rt:
            try:
                return await _attempt(rt, task, job, attempt, fields)
            except RelayError as failure:
                log.error("deploy.failed", reason=str(failure), **fields)
                await _rest(rt, job)
                kind = DeployHeld if isinstance(failure, DeployHeld) else DeployFailed
                raise kind(str(failure)) from None
    except DeployFailed:
        raise
    except Exception as error:
        crashed(job, error, fields)
        raise


async def _rest(rt: Runtime, job: Job) -> None:
    """Let a job that failed for good rest, and start afresh if somebody requeues it."""
    # RQ runs a job that raised again as long as retries are left; those are for crashes.
    job.retries_left = 0
    with suppress(RedisError, OSError):
        await rt.send(
            "HSET",
            f"{JOB_PREFIX}{job.id}",
            "number_of_retries",
            0,
            "retries_left",
            len(RETRY_INTERVALS),
        )


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _job() -> Job:
    job = get_current_job()
    if job is None:
        raise LookupError("this runs as an RQ job only")
    return job


async def _attempt(
    rt: Runtime, task: Deploy, job: Job, attempt: int, fields: dict[str, Any]
) -> dict[str, Any] | Retry:
    target = rt.project.targets.get(task.target)
    if target is None:
        raise DeployFailed("relay.yaml no longer has this target")
    recipe = rt.project.recipes[task.target]
    key = f"{JOB_PREFIX}{job.id}"
    seen = await look(rt, job.id, task, target)
    if seen.cancelled_by is not None:
        log.warning("deploy.cancelled", by=seen.cancelled_by, **fields)
        return {"cancelled_by": seen.cancelled_by}
    if seen.replay_of is not None and seen.fresh:
        log.info("deploy.replayed", replay_of=seen.replay_of, by=seen.requested_by, **fields)
    if seen.begun is not None:
        # Whoever requeues the job has decided; the next run must not stop here again.
        rt.answered.add(job.id)
        fields["attempt"] = attempt = seen.begun
        reason = f"attempt {attempt} was cut off before its answer came"
        _judge_uncertain(recipe, reason, fields)
        _check_attempts(target, attempt, reason)
        fields["attempt"] = attempt = attempt + 1
        # An attempt that a crash cut off has not been counted by RQ.
        job.number_of_retries = attempt - 1
    decision = decide(job.id, seen.newest, target.debounce, seen.standing, time.time())
    probe = isinstance(decision, Go) and decision.probe
    if probe and not await take_probe(rt, job.id, task.target, target):
        decision = probing(time.time())
    if isinstance(decision, Superseded):
        log.info("deploy.superseded", by=decision.by, **fields)
        return {"superseded_by": decision.by}
    if isinstance(decision, Wait):
        return await _wait(rt, job, decision, seen.waiting, fields)

    call = recipe.plan(
        task.event,
        route=task.route,
        delivery=task.delivery,
        source=task.source,
        reveal=lambda ref: ref.reveal(),
    )
    # A note that Redis took without saying so must not outlive a call that was never made.
    rt.answered.add(job.id)
    over = (WAITING_FIELD, "") if seen.waiting else ()
    await rt.send("HSET", key, CALLING_FIELD, attempt, ATTEMPTS_FIELD, attempt, *over)
    rt.answered.discard(job.id)
    log.info("deploy.attempted", method=call.method, **fields)
    # Lines are written when this turn of the event loop ends; the call begins in the next one.
    await asyncio.sleep(0)
    started = time.monotonic()
    asked: float | None = None
    status: int | None = None
    try:
        answer = await rt.client.call(
            call, idempotency_key=job.id, total=target.timeout, connect=target.connect_timeout
        )
    except CallFailed as failure:
        verdict = Verdict("uncertain" if failure.uncertain else "retry", str(failure))
    except DeployFailed:
        rt.answered.add(job.id)
        raise
    else:
        status = answer.status
        asked = retry_after(answer.headers.get("Retry-After"), time.time())
        verdict = judge(answer, recipe.success, recipe.deployment_id)
    fields |= {"status": status, "ms": round((time.monotonic() - started) * 1000, 1)}
    seconds = _seconds(target.retry.retry_after_cap, asked)
    if seconds is None:
        seconds = math.ceil(pause(target.retry, attempt, random.random()))  # noqa: S311
    throttled = status == TOO_MANY_REQUESTS or (status == UNAVAILABLE and asked is not None)
    lesson = Lesson(verdict, status, seconds if throttled else None, probe)
    await learn(rt, task.target, target, seen.standing, lesson)
    # From here on nothing is awaited: a run that is cut off now must not look as if never called.
    rt.answered.add(job.id)

    if verdict.outcome == "succeeded":
        log.info("deploy.succeeded", deployment_id=verdict.deployment_id, **fields)
        return {"status": status, "attempt": attempt, "deployment_id": verdict.deployment_id}
    if verdict.outcome == "failed":
        raise DeployFailed(verdict.reason)
    if verdict.outcome == "uncertain":
        _judge_uncertain(recipe, verdict.reason, fields)
    _check_attempts(target, attempt, verdict.reason)
    log.warning(
        "deploy.retry_scheduled",
        reason=verdict.reason,
        seconds=seconds,
        retry_after=asked is not None,
        **fields,
    )
    return Retry(max=target.retry.attempts, interval=seconds)


async def _wait(rt: Runtime, job: Job, wait: Wait, told: str, fields: dict[str, Any]) -> Retry:
    """Have RQ run the job again when the wait is over. That is no attempt."""
    until = None if wait.until is None else moment(wait.until)
    waiting = f"{wait.reason} {until or ''}"
    if waiting != told:
        log.info("deploy.waiting", reason=wait.reason, until=until, **fields)
        await rt.send("HSET", f"{JOB_PREFIX}{job.id}", WAITING_FIELD, waiting)
    # RQ counts one more when it takes the Retry; the next run is to be the same attempt.
    job.number_of_retries = (job.number_of_retries or 0) - 1
    # RQ's scheduler drops fractions of the due time.
    seconds = math.ceil(wait.look) - math.floor(time.time())
    return Retry(max=_ENDLESS, interval=max(1, seconds))


def _judge_uncertain(recipe: Recipe, reason: str, fields: Mapping[str, Any]) -> None:
    """Tell of an attempt of which nobody knows whether the platform took it. Raises DeployHeld
    where such a call is not to be made again."""
    log.warning("deploy.uncertain", reason=reason, on_uncertain=recipe.on_uncertain, **fields)
    if recipe.on_uncertain == "hold":
        raise DeployHeld(
            f"{reason}; the platform may have deployed, so it is not called again without a human "
            "decision"
        )


def _check_attempts(target: Target, attempt: int, reason: str) -> None:
    """Raises DeployFailed where there is no next attempt."""
    if attempt >= target.retry.attempts:
        raise DeployFailed(f"{reason}; attempt {attempt} was the last")


def _seconds(cap: float, asked: float | None) -> int | None:
    """The pause a platform asked for, up to ``cap``, in the whole seconds that RQ counts in.

    RQ's scheduler drops fractions of the due time, so one second more keeps it from being early.
    """
    return None if asked is None else math.ceil(min(asked, cap)) + 1
