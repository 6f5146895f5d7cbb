"""The whole relay at one moment: how much happens, what waits, who works, what needs a person.

Read in a few round trips, however much waits: numbers are those that Redis has ready, and of what
has none only the first ``FIRST`` are looked at, as said where it is.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE
from rq.rate_limit import RateLimitRegistry
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from relay.archive import Archive
from relay.briefs import RESULTS_PREFIX
from relay.filtering import Filter
from relay.pace import Minute, minute, minutes, pace_key
from relay.reading import Record, epoch, read_end
from relay.records import (
    APPROVED_BY_FIELD,
    JOB_PREFIX,
    QUEUE_PREFIX,
    REPLAYED_BY_FIELD,
    WAITING_FIELD,
)

FIRST = 200
"""Jobs at the front of the queue, newest failed ones, and ones that are due first, looked at."""

MINUTES = 60

NEWEST = 10
"""Deploys, and of what needs a person, that are read whole."""

LOOKED_AT = 500
"""Jobs looked at in each place to find the newest deploys."""

Breaker = Literal["off", "closed", "open", "half-open"]


class Standing(Protocol):
    """How a target stands; Overview of workers/targets.py."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def calling(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def paused(self) -> bool: ...
    @property
    def breaker(self) -> Breaker: ...
    @property
    def held(self) -> bool: ...
    @property
    def until(self) -> str: ...
    @property
    def more(self) -> bool: ...


class TargetSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One target."""

    name: str
    state: str
    """In words."""
    calling: int
    """Deploys that hold one of its slots."""
    waiting: int
    """Deploys that wait for a slot or for their time."""
    more: bool
    """There are more of them, which were not counted."""
    paused: bool
    breaker: Breaker
    held: bool
    """Its platform wants no calls now."""
    until: str
    """When calls begin again, of a breaker that is open, a platform that wants none, or a rate that
    is used up."""


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker that lives."""

    name: str
    jobs: int
    """In flight."""
    heard_at: str
    """Its last heartbeat."""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator sees first. Times are seconds since the Unix epoch."""

    at: float
    minutes: Sequence[Minute]
    """The last ``MINUTES``, the running one last."""
    queued: int
    """Jobs that wait for a worker."""
    limited: int
    """Deploys that wait for a slot at their target."""
    scheduled: int
    """Jobs that wait for their time: a retry, or what ``deploy.waiting`` tells."""
    running: int
    oldest_at: float | None
    """Since when the oldest of the ``FIRST`` in the queue, or for a slot, waits; None without any.
    What waits for its time on purpose does not count."""
    workers: Sequence[WorkerSeen]
    targets: Sequence[TargetSeen]
    dead: int
    """Jobs in the dead letter, those too that were replayed."""
    failed: int
    """Of the newest ``FIRST`` of them: deploys that failed, and were not replayed."""
    held: int
    """Of the newest ``FIRST`` of them: deploys that are held, and were not replayed."""
    unmatched: int
    """Of the newest ``FIRST`` of them: deliveries that were not matched, and were not replayed."""
    approval: int
    """Deploys that wait for a person's approval, of the ``FIRST`` that look again first."""
    troubled: Sequence[Record]
    """The newest that failed or are held, and were not replayed."""
    asking: Sequence[Record]
    """Deploys that wait for a person's approval, those that look again first."""
    newest: Sequence[Record]
    """The newest deploys."""


async def read_overview(
    redis: Redis, queue: str, targets: Callable[[], Sequence[Standing]]
) -> Overview:
    """``targets`` tells how targets stand; it may block, and is called in a thread.

    Raises redis.exceptions.RedisError, and what ``targets`` raises.
    """
    now, archive = time.time(), Archive(redis, queue)
    counts, standings, found = await asyncio.gather(
        _counts(redis, queue, now),
        asyncio.to_thread(targets),
        archive.find("deploy", Filter(), NEWEST, most=LOOKED_AT),
    )
    queued, scheduled, running, dead, limits, workers, front, failed, due, *paces = counts
    limited, since = await _limited(redis, limits)
    seen_workers, since_queued, troubled, approval = await asyncio.gather(
        _workers(redis, workers),
        _queued_since(redis, front),
        _troubled(redis, failed),
        _approval(redis, due),
    )
    ids = list(troubled)[:NEWEST]
    newest, deploys, deliveries, asking = await asyncio.gather(
        archive.read("deploy", found.ids),
        archive.read("deploy", ids),
        archive.read("delivery", ids),
        archive.read("deploy", approval[:NEWEST]),
    )
    known = {record.id: record for record in (*deploys, *deliveries)}
    how = Counter(troubled.values())
    return Overview(
        at=now,
        minutes=[
            minute(at, fields) for at, fields in zip(minutes(now, MINUTES), paces, strict=True)
        ],
        queued=queued,
        limited=limited,
        scheduled=scheduled,
        running=running,
        oldest_at=min((at for at in (*since, *since_queued) if at), default=None),
        workers=seen_workers,
        targets=[_target(standing) for standing in standings],
        dead=dead,
        failed=how["failed"],
        held=how["held"],
        unmatched=how["unmatched"],
        approval=len(approval),
        troubled=[known[id_] for id_ in ids if id_ in known],
        asking=asking,
        newest=newest,
    )


async def _counts(redis: Redis, queue: str, now: float) -> list[Any]:
    waiting = f"{QUEUE_PREFIX}{queue}"
    scheduled = ScheduledJobRegistry.key_template.format(queue)
    failed = FailedJobRegistry.key_template.format(queue)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.llen(waiting)
        pipe.zcard(scheduled)
        pipe.zcard(StartedJobRegistry.key_template.format(queue))
        pipe.zcard(failed)
        pipe.smembers(RateLimitRegistry.rl_keys_key)
        pipe.smembers(WORKERS_BY_QUEUE_KEY % queue)
        pipe.lrange(waiting, 0, FIRST - 1)
        pipe.zrange(failed, 0, FIRST - 1, desc=True)
        pipe.zrange(scheduled, 0, FIRST - 1)
        for at in minutes(now, MINUTES):
            pipe.hgetall(pace_key(at))
        return await pipe.execute()


async def _limited(redis: Redis, limits: Sequence[bytes]) -> tuple[int, list[float]]:
    """How many wait for a slot, and since when the first of each target."""
    async with redis.pipeline(transaction=False) as pipe:
        for limit in limits:
            key = f"{RQ_KEY_PREFIX}:rl:{limit.decode()}:rate_limited"
            pipe.zcard(key)
            pipe.zrange(key, 0, 0, withscores=True)
        answers = await pipe.execute()
    return sum(answers[::2]), [score for first in answers[1::2] for _, score in first]


async def _workers(redis: Redis, keys: Sequence[bytes]) -> list[WorkerSeen]:
    # A worker that was killed stays a member until RQ's maintenance; its own key expires before.
    names = sorted(key.decode().rpartition(":")[2] for key in keys)
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hget(f"{RQ_KEY_PREFIX}:worker:{name}", "last_heartbeat")
            pipe.scard(WORKER_EXECUTIONS_KEY_TEMPLATE.format(name))
        answers = await pipe.execute()
    return [
        WorkerSeen(name=name, jobs=jobs, heard_at=heard.decode())
        for name, heard, jobs in zip(names, answers[::2], answers[1::2], strict=True)
        if heard
    ]


async def _queued_since(redis: Redis, ids: Sequence[bytes]) -> list[float]:
    async with redis.pipeline(transaction=False) as pipe:
        for id_ in ids:
            pipe.hget(JOB_PREFIX + id_.decode(), "enqueued_at")
        return [epoch(value.decode()) for value in await pipe.execute() if value]


async def _troubled(redis: Redis, ids: Sequence[bytes]) -> Mapping[str, str]:
    """Those that were not replayed, in their order, and how each stands."""
    names = [id_.decode() for id_ in ids]
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(JOB_PREFIX + name, ["status", REPLAYED_BY_FIELD, "description"])
            pipe.xrevrange(RESULTS_PREFIX + name, count=1)
        answers = await pipe.execute()
    return {
        name: _trouble(description or b"", ends)
        for name, (status, replay, description), ends in zip(
            names, answers[::2], answers[1::2], strict=True
        )
        if status == b"failed" and not replay
    }


def _trouble(description: bytes, ends: Sequence[Any]) -> str:
    if not description.startswith(b"deploy:"):
        return "unmatched"
    return "held" if ends and read_end(ends[0]).held else "failed"


async def _approval(redis: Redis, ids: Sequence[bytes]) -> list[str]:
    async with redis.pipeline(transaction=False) as pipe:
        for id_ in ids:
            pipe.hmget(JOB_PREFIX + id_.decode(), [WAITING_FIELD, APPROVED_BY_FIELD])
        answers = await pipe.execute()
    return [
        id_.decode()
        for id_, (waiting, approved) in zip(ids, answers, strict=True)
        if (waiting or b"").startswith(b"approval ") and approved is None
    ]


def _target(standing: Standing) -> TargetSeen:
    return TargetSeen(
        name=standing.name,
        state=standing.state,
        calling=standing.calling,
        waiting=standing.waiting,
        more=standing.more,
        paused=standing.paused,
        breaker=standing.breaker,
        held=standing.held,
        until=standing.until,
    )
