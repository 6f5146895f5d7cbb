"""Gauges, read from the ledger at each scrape: how much waits, for what, and for how long.

Blocking. Each number counts deploys that have not ended or need a person, never all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from redis.exceptions import RedisError
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from config.model import Target
from config.settings import Settings
from relay.errors import LedgerUnavailable, LedgerUnusable, StoreUnavailable
from relay.events.deploy_life import ATTENTION
from relay.ledger.ledger import read_blocking
from relay.ledger.overview import Load, TargetSeen, read_load, read_targets
from relay.ledger.transaction import Reader
from relay.store import connect


class Gauge(NamedTuple):
    """A current number; with a label, one for each of its values."""

    name: str
    help: str
    values: Sequence[tuple[str, float]]
    label: str = ""


def read(settings: Settings, targets: Mapping[str, Target]) -> Iterator[Gauge]:
    """Yield all gauges that can be read. Where the ledger or Redis does not answer, only the gauge
    that says so."""
    gauges: list[Gauge] = []

    async def read_all(reader: Reader) -> tuple[Load, list[TargetSeen], float]:
        return await read_load(reader), await read_targets(reader, targets), reader.now / 1e6

    with suppress(LedgerUnavailable, LedgerUnusable):
        load, standings, now = read_blocking(settings.data_dir, read_all)
        gauges = [*_of_load(load, now), *_of_targets(standings)]
    yield _one("ledger_up", "1 if the ledger could be read for this scrape.", bool(gauges))
    workers = _workers(settings)
    yield _one("redis_up", "1 if Redis answered this scrape.", workers is not None)
    if workers is not None:
        yield _one("workers", "Workers that take jobs.", workers)
    yield from gauges


def _workers(settings: Settings) -> int | None:
    # The client's errors may quote what it sent, so only the failure itself is told.
    with (
        suppress(RedisError, OSError, StoreUnavailable),
        connect(settings.redis_address(), timeout=settings.store_timeout) as redis,
    ):
        return int(redis.scard(WORKERS_BY_QUEUE_KEY % settings.queue))
    return None


def _of_load(load: Load, now: float) -> list[Gauge]:
    oldest = 0.0 if load.oldest_at is None else max(0.0, now - load.oldest_at)
    return [
        _one("queue_jobs", "Deliveries, deploys and notices that wait for a worker.", load.queued),
        _one("scheduled_jobs", "Deploys that wait for anything else.", load.scheduled),
        _one("running_jobs", "Deploys and notices that are being called.", load.running),
        _one(
            "queue_oldest_seconds",
            "Age of the oldest delivery or deploy that waits for a worker or a slot.",
            oldest,
        ),
        Gauge(
            "deploy_relay_waiting_deploys",
            "Deploys that wait, by what they wait for.",
            [(reason or "worker", float(number)) for reason, number in load.waits.items()],
            "reason",
        ),
        Gauge(
            "deploy_relay_attention_deploys",
            "Deploys that need a person, by status: not overtaken by a success, not replayed.",
            [(status, float(load.attention.get(status, 0))) for status in sorted(ATTENTION)],
            "status",
        ),
    ]


def _of_targets(targets: Sequence[TargetSeen]) -> list[Gauge]:
    def gauge(name: str, text: str, read: Callable[[TargetSeen], float]) -> Gauge:
        values = [(target.name, float(read(target))) for target in targets]
        return Gauge(f"deploy_relay_target_{name}", text, values, "target")

    return [
        gauge("paused", "1 while an operator has paused it.", lambda one: one.paused),
        gauge(
            "held", "1 while its platform limits calls (429 or Retry-After).", lambda one: one.held
        ),
        gauge(
            "breaker_open",
            "1 while its circuit breaker is open or half-open.",
            lambda one: one.breaker in ("open", "half-open"),
        ),
        gauge("calls_in_flight", "Deploys that are being called.", lambda one: one.calling),
        gauge("waiting_deploys", "Deploys that wait for it.", lambda one: one.waiting),
    ]


def _one(name: str, text: str, value: float) -> Gauge:
    return Gauge(f"deploy_relay_{name}", text, [("", float(value))])
