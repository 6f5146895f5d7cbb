"""What is read from Redis and the disk when somebody scrapes: how much waits, and for how long.

Bounded however much waits: what has no number of its own in Redis is counted among the first few
only, as said where it is. Blocking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import RedisError
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from config.model import Target
from config.settings import Settings
from relay.briefs import RESULTS_PREFIX
from relay.errors import StoreUnavailable
from relay.overview import Standing
from relay.reading import epoch, read_end
from relay.records import JOB_PREFIX, QUEUE_PREFIX, REPLAYED_BY_FIELD
from relay.store import connect

FIRST = 500
"""Jobs at the front of the queue, and newest failed jobs, that are looked at."""


class Gauge(NamedTuple):
    """A number as it is now, for each value of its label if it has one."""

    name: str
    help: str
    values: Sequence[tuple[str, float]]
    label: str = ""


MOST_SCHEDULED = 20_000
"""Jobs that run at a later time which a scrape counts by their target."""


ReadTargets = Callable[[Redis, Mapping[str, Target], str], Sequence[Standing]]
"""How the targets stand, with the name of the queue; the roof hands it in."""


def read(
    settings: Settings, targets: Mapping[str, Target], read_targets: ReadTargets
) -> Iterator[Gauge]:
    """Everything that could be read; of a Redis that does not answer only that it does not."""
    known: list[Gauge] = []
    # The client's errors may name what it was told; that they came is all that is handed out.
    with (
        suppress(RedisError, OSError, StoreUnavailable),
        connect(settings.redis_address(), timeout=settings.store_timeout) as redis,
    ):
        known += _jobs(redis, settings.queue, time.time())
        known += _targets(read_targets(redis, targets, settings.queue))
    yield _one("redis_up", "1 if Redis answered this scrape.", bool(known))
    yield from known


def _jobs(redis: Redis, queue: str, now: float) -> list[Gauge]:
    failed = FailedJobRegistry.key_template.format(queue)
    with redis.pipeline(transaction=False) as pipe:
        pipe.llen(f"{QUEUE_PREFIX}{queue}")
        pipe.zcard(ScheduledJobRegistry.key_template.format(queue))
        pipe.zcard(StartedJobRegistry.key_template.format(queue))
        pipe.zcard(failed)
        pipe.scard(WORKERS_BY_QUEUE_KEY % queue)
        pipe.lrange(f"{QUEUE_PREFIX}{queue}", 0, FIRST - 1)
        pipe.zrange(failed, 0, FIRST - 1, desc=True)
        waiting, scheduled, started, dead, workers, first, newest = pipe.execute()
    return [
        _one("queue_jobs", "Jobs in the queue.", waiting),
        _one("scheduled_jobs", "Jobs that run at a later time.", scheduled),
        _one("running_jobs", "Jobs that run.", started),
        _one("failed_jobs", "Jobs in the failed registry, held ones too.", dead),
        _one("workers", "Workers that take jobs.", workers),
        _one(
            "queue_oldest_seconds",
            f"How long the oldest of the first {FIRST} jobs in the queue has been there.",
            _oldest(redis, first, now),
        ),
        _one(
            "held_deploys",
            f"Deploys among the newest {FIRST} failed jobs that are held, and not replayed.",
            _held(redis, newest),
        ),
    ]


def _oldest(redis: Redis, ids: Sequence[bytes], now: float) -> float:
    with redis.pipeline(transaction=False) as pipe:
        for id_ in ids:
            pipe.hget(f"{JOB_PREFIX}{id_.decode()}", "enqueued_at")
        times = [epoch(value.decode()) for value in pipe.execute() if value]
    return max((now - at for at in times if 0 < at < now), default=0)


def _held(redis: Redis, ids: Sequence[bytes]) -> int:
    with redis.pipeline(transaction=False) as pipe:
        for id_ in ids:
            pipe.xrevrange(f"{RESULTS_PREFIX}{id_.decode()}", count=1)
            pipe.hget(f"{JOB_PREFIX}{id_.decode()}", REPLAYED_BY_FIELD)
        answers: list[Any] = pipe.execute()
    return sum(
        read_end(entries[0]).held
        for entries, replayed in zip(answers[::2], answers[1::2], strict=True)
        if entries and not replayed
    )


def _targets(targets: Sequence[Standing]) -> list[Gauge]:
    def gauge(name: str, text: str, read: Callable[[Standing], float]) -> Gauge:
        values = [(target.name, float(read(target))) for target in targets]
        return Gauge(f"deploy_relay_target_{name}", text, values, "target")

    return [
        gauge("paused", "1 while an operator has paused it.", lambda one: one.paused),
        gauge("held", "1 while its platform wants no calls.", lambda one: one.held),
        gauge(
            "breaker_open",
            "1 until a probe is answered.",
            lambda one: one.breaker in ("open", "half-open"),
        ),
        gauge("calls_in_flight", "Deploys that hold one of its slots.", lambda one: one.calling),
        gauge("waiting_deploys", "Deploys that wait for it.", lambda one: one.waiting),
    ]


def _one(name: str, text: str, value: float) -> Gauge:
    return Gauge(f"deploy_relay_{name}", text, [("", float(value))])
