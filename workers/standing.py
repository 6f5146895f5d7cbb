"""How a target stands with all workers: its breaker, and what its platform asked for.

Kept in the hash ``relay:target:<name>``. It is read in one round trip, together with what else
decides on a deploy; the decision itself is workers/gate.py's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from redis.exceptions import RedisError
from rq.registry import ScheduledJobRegistry

from config.model import Target
from config.policies import Breaker
from relay.audit import log
from relay.records import (
    APPROVED_BY_FIELD,
    ATTEMPTS_FIELD,
    CANCELLED_BY_FIELD,
    JOB_PREFIX,
    REPLAY_OF_FIELD,
    REQUESTED_BY_FIELD,
    WAITING_FIELD,
)
from workers.deploys import BOOKKEEPING, Deploy, latest_key, limited_key
from workers.gate import Ahead, Newest, Standing, moment, stays_open
from workers.line import look_ahead
from workers.runtime import CALLING_FIELD, Runtime
from workers.verdict import Verdict

TOO_MANY_REQUESTS = 429
"""The platform is well, but does not want to be called so often."""

FIELDS = ("paused", "held", "failures", "until", "opened")
"""Of the hash; see workers/gate.py."""


_JOB_FIELDS = (
    *(CALLING_FIELD, WAITING_FIELD, ATTEMPTS_FIELD),
    *(CANCELLED_BY_FIELD, REPLAY_OF_FIELD, REQUESTED_BY_FIELD, APPROVED_BY_FIELD),
)


class Seen(NamedTuple):
    """What Redis knows of a deploy that is about to be called."""

    begun: int | None
    """The attempt that was cut off in its call."""
    waiting: str
    """What it waited for."""
    fresh: bool
    """It has neither been called nor waited before."""
    cancelled_by: str | None
    replay_of: str | None
    requested_by: str
    """Who asked for the replay."""
    approved_by: str | None
    newest: Newest | None
    rank: int
    """How many stand before it in the line, if there is one."""
    ahead: Ahead | None
    standing: Standing


def standing_key(target: str) -> str:
    """Where it is kept how a target stands: a hash."""
    return f"relay:target:{target}"


def standing_of(values: Sequence[bytes | None]) -> Standing:
    """What the fields of the hash say."""
    paused, held, failures, until, opened = (float(value or 0) for value in values)
    return Standing(paused, held, int(failures), until, int(opened))


def _probe_key(target: str) -> str:
    return f"relay:probe:{target}"


async def look(rt: Runtime, job: str, task: Deploy, target: Target) -> Seen:
    """Everything that decides on a deploy, in one round trip.

    Raises redis.exceptions.RedisError.
    """
    asked = [
        rt.send("HMGET", f"{JOB_PREFIX}{job}", *_JOB_FIELDS),
        rt.send("HMGET", standing_key(task.target), *FIELDS),
    ]
    if target.newest_only:
        asked.append(rt.send("HMGET", latest_key(task), "job", "at", "burst"))
    before = _ahead(rt, job, task.target) if target.concurrency == 1 else _nobody()
    (rank, first), about, standing, *latest = await asyncio.gather(before, *asked)
    begun, waiting, attempts, *people = map(_text, about)
    cancelled_by, replay_of, requested_by, approved_by = people
    newest = None
    if latest and latest[0][0]:
        name, at, burst = latest[0]
        newest = Newest(name.decode(), float(at or 0), float(burst or 0))
    stands = standing_of(standing)
    if target.breaker is None:
        stands = replace(stands, failures=0, until=0, opened=0)
    return Seen(
        None if begun is None else int(begun),
        waiting or "",
        waiting is None and attempts is None,
        cancelled_by,
        replay_of,
        requested_by or "",
        approved_by,
        newest,
        rank,
        first,
        stands,
    )


async def _ahead(rt: Runtime, job: str, target: str) -> tuple[int, Ahead | None]:
    scheduled = ScheduledJobRegistry.key_template.format(rt.project.settings.queue)
    return await look_ahead(rt.redis, target, job, scheduled=scheduled, limited=limited_key(target))


async def _nobody() -> tuple[int, None]:
    return 0, None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


async def take_probe(rt: Runtime, job: str, name: str, target: Target) -> bool:
    """Whether this deploy is the one call that an open breaker lets through.

    Raises redis.exceptions.RedisError.
    """
    seconds = int(target.timeout) + BOOKKEEPING
    return bool(await rt.send("SET", _probe_key(name), job, "NX", "EX", seconds))


async def release_probe(rt: Runtime, name: str) -> None:
    """Let another deploy be the probe, as this one is not called after all. If Redis is away the
    note of it expires."""
    with suppress(RedisError, OSError):
        await rt.send("DEL", _probe_key(name))


class Lesson(NamedTuple):
    """What one call tells of its target."""

    verdict: Verdict
    status: int | None
    """None without an answer."""
    hold: float | None
    """Seconds for which the platform does not want to be called, by anyone."""
    probe: bool
    """Whether the breaker was open and let this call through."""


async def learn(rt: Runtime, name: str, target: Target, standing: Standing, lesson: Lesson) -> None:
    """Draw from one call's outcome what concerns all calls of its target.

    ``standing`` is how it stood before the call. If Redis is away nothing is learnt: the outcome of
    the call itself matters more, and is kept elsewhere.
    """
    with suppress(RedisError, OSError):
        if lesson.hold is not None:
            await _hold(rt, name, standing, lesson.verdict.reason, lesson.hold)
        if target.breaker is not None:
            if lesson.verdict.outcome not in ("retry", "uncertain"):
                await _answered(rt, name, standing, probe=lesson.probe)
            elif lesson.status != TOO_MANY_REQUESTS:
                await _failed(rt, name, target.breaker, standing, lesson)
            if lesson.probe:
                await rt.send("DEL", _probe_key(name))


async def _hold(rt: Runtime, name: str, standing: Standing, reason: str, seconds: float) -> None:
    until = time.time() + seconds
    if until > standing.held:
        await rt.send("HSET", standing_key(name), "held", str(until))
        log.warning("target.held", target=name, reason=reason, until=moment(until))


async def _answered(rt: Runtime, name: str, standing: Standing, *, probe: bool) -> None:
    """The platform answered, be it with a refusal. Only a probe closes the breaker: a call that
    began before it opened tells nothing of the time since."""
    key = standing_key(name)
    if probe:
        was_open, _ = await asyncio.gather(
            rt.send("HDEL", key, "until"), rt.send("HDEL", key, "failures", "opened")
        )
        if was_open:
            log.info("target.closed", target=name)
    elif standing.failures:
        await rt.send("HDEL", key, "failures")


async def _failed(
    rt: Runtime, name: str, breaker: Breaker, standing: Standing, lesson: Lesson
) -> None:
    key = standing_key(name)
    opened = standing.opened if lesson.probe else 0
    if not lesson.probe:
        failures = await rt.send("HINCRBY", key, "failures", 1)
        if failures < breaker.failures:
            return
    until = stays_open(breaker, opened, time.time())
    # Of the calls that fail at that moment one opens it; a probe has the decision to itself.
    if lesson.probe or await rt.send("HSETNX", key, "until", str(until)):
        await rt.send("HSET", key, "until", str(until), "opened", opened + 1)
        log.error("target.opened", target=name, reason=lesson.verdict.reason, until=moment(until))
