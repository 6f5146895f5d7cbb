"""The two jobs: ``deliver`` turns a delivery into deploys, ``deploy`` makes one call.

They are coroutines, which any rq worker runs. What is seen here is how a job begins and ends; a
deploy's attempt is in workers/attempts.py.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from redis.exceptions import RedisError
from rq import Retry, get_current_job
from rq.job import Job

from config.errors import RelayError
from config.model import Target
from relay.audit import delivery_fields, event_fields, log
from relay.errors import AuditUnavailable
from relay.events.event import Delivery
from relay.identity import is_replay
from relay.records import (
    CANCELLED_BY_FIELD,
    JOB_PREFIX,
    REPLAY_OF_FIELD,
    REQUESTED_BY_FIELD,
    RETRY_INTERVALS,
    WAITING_FIELD,
)
from relay.statuses import Kind
from relay.tracing import begin
from workers.announcing import announce
from workers.attempts import attempt
from workers.deploys import Deploy, Wanted
from workers.ends import crashed
from workers.errors import DeployFailed, DeployHeld
from workers.history import ended_well
from workers.runtime import Runtime, runtime


async def deliver(raw: str) -> list[str]:
    """Match one delivery against the routes and queue a deploy job for each call.

    Running twice does no harm: deploys that were queued the first time are duplicates the second.
    Returns the ids of the deploy jobs.
    """
    fields: dict[str, Any] | None = None
    try:
        delivery = msgspec.json.decode(raw, type=Delivery)
        # A delivery that was recognised by its body came with another id.
        delivery = msgspec.structs.replace(delivery, id=_job().id)
        fields = delivery_fields(delivery)
        return await _deliver(delivery, fields)
    except Exception as error:
        crashed(_job(), error, fields)
        raise


async def _deliver(delivery: Delivery, fields: dict[str, Any]) -> list[str]:
    span = begin("deliver", delivery.trace, **fields)
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
                    Deploy(
                        delivery.id,
                        delivery.source,
                        route.name,
                        name,
                        delivery.event,
                        delivery.received_at,
                        span.trace,
                    ),
                    project.targets[name],
                )
                for name in route.deploy
            ]
        queued = await rt.deploys.submit(Wanted(delivery.id, wanted))
        _note_end(rt, "delivery", delivery.id)
        span.end(deploys=len(queued))
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
        number = (job.number_of_retries or 0) + 1
        fields = {
            "delivery": task.delivery,
            "source": task.source,
            **event_fields(task.event),
            "deploy": job.id,
            "route": task.route,
            "target": task.target,
            "attempt": number,
        }
        async with runtime() as rt:
            try:
                told = await attempt(rt, task, job, number, fields)
            except AuditUnavailable:
                # Nothing was called, and RQ runs the job again.
                raise
            except RelayError as failure:
                log.error("deploy.failed", reason=str(failure), **fields)
                await _rest(rt, job)
                held = isinstance(failure, DeployHeld)
                announce(rt, "held" if held else "failure", task, job.id, str(failure))
                kind = DeployHeld if held else DeployFailed
                raise kind(str(failure)) from None
            except Exception:
                if not job.retries_left:
                    announce(rt, "failure", task, job.id, "internal error")
                raise
            if not isinstance(told, Retry):
                _note_end(rt, "deploy", job.id)
                # Its delivery ends with the last of its deploys.
                _note_end(rt, "delivery", task.delivery)
            return told
    except DeployFailed:
        raise
    except Exception as error:
        crashed(job, error, fields)
        raise


def _note_end(rt: Runtime, kind: Kind, id_: str) -> None:
    """Have it noted, with the end of this run, that something ended well."""
    rt.along.add(_job().id, ended_well(rt.project.settings.queue, kind, id_))


async def _rest(rt: Runtime, job: Job) -> None:
    """Let a job that failed for good rest, and start afresh if somebody requeues it."""
    # RQ runs a job that raised again as long as retries are left; those are for crashes.
    job.retries_left = 0
    with suppress(RedisError, OSError):
        await rt.send(
            "HSET",
            f"{JOB_PREFIX}{job.id}",
            *("number_of_retries", 0),
            *("retries_left", len(RETRY_INTERVALS)),
            *(WAITING_FIELD, ""),
        )


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _job() -> Job:
    job = get_current_job()
    if job is None:
        raise LookupError("this runs as an RQ job only")
    return job
