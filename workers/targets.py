"""What an operator does to a target: look how it stands, pause it, let it go on.

Blocking, for the command line. All functions raise redis.exceptions.RedisError.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from redis import Redis
from rq.rate_limit import RateLimitRegistry
from rq.registry import ScheduledJobRegistry

from config.model import Target
from relay.gauges import TargetGauges
from relay.records import JOB_PREFIX, WAITING_FIELD
from relay.store import execute_blocking
from workers.deploys import limit_key
from workers.gate import Standing, said
from workers.line import in_order
from workers.standing import FIELDS, standing_key, standing_of

MOST_SCHEDULED = 20_000
"""Jobs that run at a later time which a scrape looks at."""


class Overview(NamedTuple):
    """One target, as far as deploys are concerned."""

    name: str
    state: str
    calling: int
    """Deploys that hold one of its slots: called, or about to be."""
    waiting: int
    """Deploys that wait for a slot or for their time."""
    standing: Standing


def overview(
    redis: Redis, targets: Mapping[str, Target], queue: str, *, most: int | None = None
) -> list[Overview]:
    """How targets stand at this moment.

    Of the jobs that run at a later time ``most`` are looked at, all if left out.
    """
    later: Counter[str] = Counter()
    for job, _ in islice(redis.zscan_iter(_scheduled_key(queue), count=1_000), most):
        later[job.decode().rpartition("--")[0]] += 1
    with redis.pipeline(transaction=False) as pipe:
        for name in targets:
            registry = RateLimitRegistry(limit_key(name), redis)
            pipe.hmget(standing_key(name), *FIELDS)
            pipe.zcard(registry.allowed_key)
            pipe.zcard(registry.rate_limited_key)
        answers = iter(pipe.execute())
    told, now = [], time.time()
    for (name, target), values in zip(targets.items(), answers, strict=False):
        calling, waiting = next(answers), next(answers)
        standing = standing_of(values)
        state = said(target, standing, now)
        told.append(Overview(name, state, calling, waiting + later[name], standing))
    return told


def gauges(redis: Redis, targets: Mapping[str, Target], queue: str) -> list[TargetGauges]:
    """How targets stand, as numbers for a scrape."""
    now = time.time()
    return [
        TargetGauges(
            row.name,
            paused=bool(row.standing.paused),
            held=now < row.standing.held,
            breaker_open=targets[row.name].breaker is not None and bool(row.standing.until),
            calling=row.calling,
            waiting=row.waiting,
        )
        for row in overview(redis, targets, queue, most=MOST_SCHEDULED)
    ]


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


def _scheduled(redis: Redis, name: str, queue: str) -> Iterable[str]:
    """Deploys of a target that RQ runs at a later time."""
    for job, _ in redis.zscan_iter(_scheduled_key(queue), match=f"{name}--*", count=1_000):
        yield job.decode()


def _scheduled_key(queue: str) -> str:
    return ScheduledJobRegistry.key_template.format(queue)
