"""Has what became of a deploy told: one job for each notifier, queued with the end of the run.

So nothing is told of what is not stored, nothing waits for a chat server, and what Redis refuses of
it changes no outcome. That a branch failed is remembered until a deploy of it succeeds.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

import msgspec
from redis.exceptions import RedisError
from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.timeouts import JobTimeoutException

from config.model import NoticeKind
from relay.identity import subject
from relay.notices import Notice
from relay.records import (
    DEPLOY_JOB,
    JOB_PREFIX,
    NOTICE_JOB,
    QUEUE_PREFIX,
    QUEUES_KEY,
    Lifetimes,
    job_fields,
)
from workers.along import Command
from workers.deploys import Deploy
from workers.runtime import Runtime

NOTICE_TIMEOUT = 60
"""Seconds that one run of a notice may take."""

NOTICE_KEPT = 3_600
"""Seconds for which RQ remembers a notice that was told or not."""


class Message(msgspec.Struct, frozen=True):
    """One notice for one notifier."""

    notifier: str
    notice: Notice


def failing_key(task: Deploy) -> str:
    """Where it is remembered that the last deploy of a branch, tag or pull request failed."""
    return f"relay:failing:{subject(task.target, task.event)}"


def announce(rt: Runtime, kind: NoticeKind, task: Deploy, deploy: str, reason: str = "") -> None:
    """Have everybody told who wants to know, once this run of the deploy has ended."""
    repo, settings = task.event.repo, rt.project.settings
    notice = Notice(
        *(kind, deploy, task.delivery, task.source, task.route, task.target, task.event, reason)
    )
    for messenger in rt.project.messengers:
        if messenger.wants(kind, task.target, repo):
            message = Message(messenger.name, notice)
            rt.along.add(deploy, *_queued(message, settings.queue, settings.dead_letter_ttl))
    if kind in ("failure", "held") and _recovery_is_told(rt, task):
        ttl = max(1, int(settings.dead_letter_ttl))
        rt.along.add(deploy, ("SET", failing_key(task), kind, "EX", ttl))


def announce_lost(rt: Runtime, job: Job, error: BaseException) -> None:
    """The same of a run that could not tell of its end itself, and is not followed by another."""
    reasons = {
        JobTimeoutException: f"it took longer than {job.timeout} s",
        AbandonedJobError: "the workers that ran it have not been heard of any more",
    }
    reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), "")
    if job.should_retry or not reason:
        return
    latest = replace(rt, project=rt.reloading.current)
    # What cannot be read, or is no deploy, is told to nobody.
    with suppress(Exception):
        if job.func_name == DEPLOY_JOB:
            task = msgspec.json.decode(job.args[0], type=Deploy)
            announce(latest, "failure", task, job.id, reason)


async def announce_success(rt: Runtime, task: Deploy, deploy: str) -> None:
    """The same of a success, if it is the first one after a failure."""
    if not _recovery_is_told(rt, task):
        return
    # Of several that succeed at one moment one finds it there.
    with suppress(RedisError, OSError):
        if await rt.send("DEL", failing_key(task)):
            announce(rt, "recovery", task, deploy)


def _recovery_is_told(rt: Runtime, task: Deploy) -> bool:
    return any(
        messenger.wants("recovery", task.target, task.event.repo)
        for messenger in rt.project.messengers
    )


def _queued(message: Message, queue: str, failure_ttl: float) -> list[Command]:
    """The commands that queue the job. At the end of the queue: deploys go first."""
    job = f"notice--{uuid4().hex}"
    fields = job_fields(
        NOTICE_JOB,
        msgspec.json.encode(message).decode(),
        queue=queue,
        description=f"notice: {message.notice.kind} {message.notice.deploy}",
        lifetimes=Lifetimes(NOTICE_TIMEOUT, result=NOTICE_KEPT, failure=int(failure_ttl)),
    )
    return [
        ("HSET", f"{JOB_PREFIX}{job}", *fields),
        ("SADD", QUEUES_KEY, QUEUE_PREFIX + queue),
        ("RPUSH", f"{QUEUE_PREFIX}{queue}", job),
    ]
