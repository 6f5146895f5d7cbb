"""A bounded look at all jobs for the overview: the newest of each place, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.rate_limit import RateLimitRegistry
from rq.registry import (
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from relay.archive import PAGE, RESULTS_PREFIX
from relay.reading import End, epoch, read_end
from relay.records import (
    CANCELLED_BY_FIELD,
    JOB_PREFIX,
    QUEUE_PREFIX,
    REPLAYED_BY_FIELD,
    WAITING_FIELD,
)
from relay.statuses import Status, status_of

LOOKED_AT = 1_000
"""Jobs looked at in each place."""

LIMITS_LOOKED_AT = 100
"""Targets whose waiting deploys are looked at, and deploys of each."""

Place = Literal["queue", "limited", "scheduled", "started", "failed", "finished"]

_OURS = (WAITING_FIELD, CANCELLED_BY_FIELD, REPLAYED_BY_FIELD)
_FIELDS = ("status", "created_at", "description", "ended_at", *_OURS)


class Seen(NamedTuple):
    """One job; times are seconds since the Unix epoch, 0 where unknown."""

    id: str
    kind: str
    status: Status
    created_at: float
    ended_at: float
    waits_for: str
    is_replayed: bool = False


class Glance(NamedTuple):
    """What was seen, and how many jobs there are of it in all."""

    jobs: Sequence[Seen]
    numbers: dict[Place, int]
    cut: frozenset[Place]
    """Places that have more than was looked at."""


async def glance(redis: Redis, queue: str) -> Glance:
    """Some twenty round trips at most. Raises redis.exceptions.RedisError."""
    keys: dict[Place, str] = {
        "scheduled": ScheduledJobRegistry.key_template.format(queue),
        "started": StartedJobRegistry.key_template.format(queue),
        "failed": FailedJobRegistry.key_template.format(queue),
        "finished": FinishedJobRegistry.key_template.format(queue),
    }
    limits: Any = await redis.smembers(RateLimitRegistry.rl_keys_key)
    some = [limit.decode() for limit in sorted(limits)[:LIMITS_LOOKED_AT]]
    half = LOOKED_AT // 2
    async with redis.pipeline(transaction=False) as pipe:
        # Deploys stand at its head, the newest first, deliveries at its end, the newest last.
        pipe.llen(QUEUE_PREFIX + queue)
        pipe.lrange(QUEUE_PREFIX + queue, 0, half - 1)
        pipe.lrange(QUEUE_PREFIX + queue, -half, -1)
        for place, key in keys.items():
            pipe.zcard(key)
            pipe.zrange(key, 0, LOOKED_AT - 1, desc=place != "scheduled")
        for limit in some:
            limited = f"{RQ_KEY_PREFIX}:rl:{limit}:rate_limited"
            pipe.zcard(limited)
            pipe.zrange(limited, 0, LIMITS_LOOKED_AT - 1)
        answers: Any = await pipe.execute()
    length, head, tail, *rest = answers
    sets, limited = rest[: 2 * len(keys)], rest[2 * len(keys) :]
    numbers: dict[Place, int] = {"queue": length, "limited": sum(limited[::2])}
    numbers |= dict(zip(keys, sets[::2], strict=True))
    listed = [head, tail, *sets[1::2], *limited[1::2]]
    # The started registry has runs: a job, a colon, an execution.
    ids = dict.fromkeys(entry.decode().partition(":")[0] for part in listed for entry in part)
    cut = frozenset(place for place, number in numbers.items() if number > LOOKED_AT)
    return Glance(await _seen(redis, list(ids)), numbers, cut)


async def _seen(redis: Redis, ids: Sequence[str]) -> list[Seen]:
    jobs: list[Seen] = []
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        async with redis.pipeline(transaction=False) as pipe:
            for id_ in page:
                pipe.hmget(JOB_PREFIX + id_, _FIELDS)
            fields: Any = await pipe.execute()
        texts = {
            id_: [(value or b"").decode(errors="replace") for value in values]
            for id_, values in zip(page, fields, strict=True)
            if values[0] is not None
        }
        ended = [
            id_
            for id_, (status, _, description, *_) in texts.items()
            if status in ("failed", "finished") and description.startswith("deploy:")
        ]
        ends = await _ends(redis, ended)
        jobs += [_read(id_, values, ends.get(id_)) for id_, values in texts.items()]
    return jobs


async def _ends(redis: Redis, ids: Sequence[str]) -> dict[str, End]:
    async with redis.pipeline(transaction=False) as pipe:
        for id_ in ids:
            pipe.xrevrange(RESULTS_PREFIX + id_, count=1)
        answers: Any = await pipe.execute()
    return {id_: read_end(entries[0]) for id_, entries in zip(ids, answers, strict=True) if entries}


def _read(id_: str, values: Sequence[str], end: End | None) -> Seen:
    status, created_at, description, ended_at, waits_for, cancelled_by, replayed_by = values
    word = status_of(
        status,
        waits=bool(waits_for),
        held=end is not None and end.held,
        superseded=end is not None and "superseded_by" in end.value,
        cancelled=bool(cancelled_by),
    )
    return Seen(
        id_,
        description.partition(":")[0],
        word,
        epoch(created_at),
        epoch(ended_at),
        waits_for.strip(),
        bool(replayed_by),
    )
