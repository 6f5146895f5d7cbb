"""What an operator does to a target: look how it stands, pause it, let it go on.

Blocking, for the command line. All functions raise redis.exceptions.RedisError.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from redis import Redis
from rq.rate_limit import RateLimitRegistry
from rq.registry import ScheduledJobRegistry

from config.model import Target
from relay.gauges import MOST_SCHEDULED
from relay.records import JOB_PREFIX, WAITING_FIELD
from relay.store import execute_blocking
from workers.deploys import limit_key
from workers.gate import Standing, moment, said
from workers.line import in_order
from workers.standing import FIELDS, standing_key, standing_of
from workers.turns import rooms

PAGE = 5_000
"""Ids read in one round trip."""


class Overview(NamedTuple):
    """One target, as far as deploys are concerned."""

    name: str
    state: str
    calling: int
    """Deploys that hold one of its slots: called, or about to be."""
    waiting: int
    """Deploys that wait for a slot or for their time."""
    paused: bool = False
    breaker: Literal["off", "closed", "open", "half-open"] = "off"
    """half-open: the next call, or the one under way, is the probe."""
    held: bool = False
    """Its platform wants no calls now."""
    until: str = ""
    """When calls begin again, of a breaker that is open, a platform that wants none, or a rate that
    is used up."""
    more: bool = False
    """More may wait than were counted."""


def overview(
    redis: Redis, targets: Mapping[str, Target], queue: str, *, most: int | None = None
) -> list[Overview]:
    """How targets stand at this moment.

    Of the deploys of all targets that wait for their time, those that are due first are counted, so
    ``most``, or all of them.
    """
    now = time.time()
    with redis.pipeline(transaction=False) as pipe:
        for name in targets:
            registry = RateLimitRegistry(limit_key(name), redis)
            pipe.hmget(standing_key(name), *FIELDS)
            pipe.zcard(registry.allowed_key)
            pipe.zcard(registry.rate_limited_key)
        answers = pipe.execute()
    room = rooms(redis, {name: target.rate for name, target in targets.items()})
    later, more = _later(redis, queue, most)
    told = []
    for (name, target), values, calling, limited in zip(
        targets.items(), *(answers[n::3] for n in range(3)), strict=True
    ):
        standing = standing_of(values)
        until = max(standing.until, standing.held, room[name])
        told.append(
            Overview(
                name,
                said(target, standing, now, room=room[name]),
                calling,
                limited + later[name],
                paused=bool(standing.paused),
                breaker=_breaker(target, standing, now),
                held=now < standing.held,
                until=moment(until) if now < until else "",
                more=more,
            )
        )
    return told


def standings(redis: Redis, targets: Mapping[str, Target], queue: str) -> list[Overview]:
    """How targets stand, for a scrape: quick however much waits."""
    return overview(redis, targets, queue, most=MOST_SCHEDULED)


def pause(redis: Redis, name: str, *, replicas: int = 0, patience: float = 1) -> bool:
    """Have no call begin from now on; false if that was so already.

    Also raises TooFewReplicas if not so many ``replicas`` have it after ``patience`` seconds.
    """
    key = standing_key(name)
    since = redis.hget(key, "paused")
    # Written even where it is so already: replicas are waited for only after a write.
    [added] = execute_blocking(
        redis,
        lambda pipe: pipe.hset(key, "paused", since or str(time.time())),
        replicas=replicas,
        patience=patience,
    )
    return bool(added)


def resume(redis: Redis, name: str, queue: str, *, replicas: int = 0, patience: float = 1) -> bool:
    """Let calls begin again, those that waited at once; false if the target was not paused.

    Replicas as for ``pause``.
    """
    key = standing_key(name)

    def fill(pipe: Any) -> None:
        # Taking away what is not there would write nothing.
        pipe.hset(key, "paused", "")
        pipe.hdel(key, "paused")

    added, _ = execute_blocking(redis, fill, replicas=replicas, patience=patience)
    due = int(time.time())
    for rank, job in enumerate(in_order(redis, name, list(_scheduled(redis, name, queue)))):
        if redis.hget(f"{JOB_PREFIX}{job}", WAITING_FIELD) == b"paused ":
            redis.zadd(_scheduled_key(queue), {job: due + rank * 1e-6}, xx=True)
    return not added


def _breaker(
    target: Target, standing: Standing, now: float
) -> Literal["off", "closed", "open", "half-open"]:
    if target.breaker is None:
        return "off"
    if not standing.until:
        return "closed"
    return "open" if now < standing.until else "half-open"


def _later(redis: Redis, queue: str, most: int | None) -> tuple[Counter[str], bool]:
    """How many deploys of each target RQ runs at a later time, and whether there are more."""
    counts: Counter[str] = Counter()
    start = 0
    while most is None or start < most:
        ids: Any = redis.zrange(_scheduled_key(queue), start, start + PAGE - 1)
        counts.update(id_.decode().partition("--")[0] for id_ in ids)
        if len(ids) < PAGE:
            return counts, False
        start += PAGE
    return counts, True


def _scheduled(redis: Redis, name: str, queue: str) -> Iterable[str]:
    """Deploys of a target that RQ runs at a later time."""
    for job, _ in redis.zscan_iter(_scheduled_key(queue), match=f"{name}--*", count=1_000):
        yield job.decode()


def _scheduled_key(queue: str) -> str:
    return ScheduledJobRegistry.key_template.format(queue)
