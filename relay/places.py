"""Where RQ has the jobs of a queue."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.rate_limit import RateLimitRegistry
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from relay.records import QUEUE_PREFIX
from relay.statuses import STATUSES, Kind, Status

_Order = Literal["set", "runs", "head", "tail"]
"""A sorted set with its newest at the end, of jobs or of their runs, or a list with its newest at
one of its ends."""


class Place(NamedTuple):
    """A key of RQ's that has jobs."""

    key: str
    order: _Order


async def places(redis: Redis, queue: str, kind: Kind, statuses: frozenset[Status]) -> list[Place]:
    """Where such jobs may be, in the order of a job's life: what moves on while we look is met
    again in a later place. Raises redis.exceptions.RedisError."""
    statuses = statuses or frozenset(STATUSES)
    is_deploy = kind == "deploy"
    found: list[Place] = []
    if "waiting" in statuses:
        if is_deploy:
            limits: Any = await redis.smembers(RateLimitRegistry.rl_keys_key)
            found += [
                Place(f"{RQ_KEY_PREFIX}:rl:{limit.decode()}:rate_limited", "set")
                for limit in sorted(limits)
            ]
        # Deliveries are put to the end of the queue, deploys to its front.
        found.append(Place(f"{QUEUE_PREFIX}{queue}", "head" if is_deploy else "tail"))
    if "retrying" in statuses or ("waiting" in statuses and is_deploy):
        found.append(Place(ScheduledJobRegistry.key_template.format(queue), "set"))
    if "running" in statuses:
        found.append(Place(StartedJobRegistry.key_template.format(queue), "runs"))
    # A matched delivery stands as its deploys stand, so that it may have any status.
    if not is_deploy or statuses & {"succeeded", "superseded", "cancelled"}:
        found.append(Place(FinishedJobRegistry.key_template.format(queue), "set"))
    if statuses & {"failed", "held", "stopped"}:
        found.append(Place(FailedJobRegistry.key_template.format(queue), "set"))
    if "cancelled" in statuses:
        found.append(Place(CanceledJobRegistry.key_template.format(queue), "set"))
    return found
