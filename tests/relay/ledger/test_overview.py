"""What an operator sees first, read from a real server."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
import redis
from rq.job import JobStatus

from config.loading import load
from config.settings import load_settings
from relay.overview import Overview, read_overview
from relay.pace import Minute, minute, minutes, pace_key, success_rate
from relay.store import asked
from tests.relay.yard import FAILED, HELD, QUEUE, Yard
from workers.targets import Overview as Standing
from workers.targets import overview as standings


def look(yard: Yard) -> Overview:
    settings = load_settings()
    known = load(settings.config, secrets_of=()).config.targets

    def targets() -> list[Standing]:
        with asked(yard.url) as blocking:
            return standings(blocking, known, QUEUE)

    return yard.with_redis(lambda connection: read_overview(connection, QUEUE, targets))


def test_an_idle_relay(yard: Yard) -> None:
    seen = look(yard)

    assert (seen.queued, seen.limited, seen.scheduled, seen.running, seen.dead) == (0, 0, 0, 0, 0)
    assert seen.oldest_at is None
    assert seen.workers == []
    assert [(one.name, one.state) for one in seen.targets] == [
        ("production", "ready"),
        ("preview", "ready"),
        ("api", "ready"),
    ]
    assert (seen.failed, seen.held, seen.approval, seen.troubled, seen.newest) == (0, 0, 0, [], [])
    assert len(seen.minutes) == 60
    assert success_rate(seen.minutes) is None


def test_what_waits_runs_and_needs_a_person(yard: Yard) -> None:
    before = time.time()
    yard.receive("a", "b")
    replayed = yard.end(yard.match("c"), JobStatus.FAILED, FAILED)
    yard.run("deploys", "replay", replayed.id)
    failed = yard.end(yard.match("d"), JobStatus.FAILED, FAILED)
    held = yard.end(yard.match("e"), JobStatus.FAILED, HELD)
    [lost] = yard.receive("f")
    yard.end(lost, JobStatus.FAILED, "ValueError: x")
    yard.match("g", "api", repo="acme/api")
    waits = yard.match("h", "api", repo="acme/other")
    # As if the first one had the only slot.
    yard.store.lrem(f"rq:queue:{QUEUE}", 0, waits.id)
    yard.store.zrem("rq:rl:target:api:allowed", waits.id)
    yard.store.zadd("rq:rl:target:api:rate_limited", {waits.id: before - 90})
    asks = yard.match("i", "preview")
    yard.store.lrem(f"rq:queue:{QUEUE}", 0, asks.id)
    yard.store.hset(asks.key, mapping={"status": "scheduled", "waiting": "approval 2030"})
    yard.store.zadd(f"rq:scheduled:{QUEUE}", {asks.id: time.time() + 60})
    yard.store.sadd(f"rq:workers:{QUEUE}", "rq:worker:lives", "rq:worker:was-killed")
    yard.store.hset("rq:worker:lives", "last_heartbeat", "2026-01-01T00:00:00.000000Z")
    yard.store.sadd("rq:worker:lives:executions", "x:1", "y:2")
    yard.store.hset("relay:target:production", mapping={"until": time.time() + 60, "opened": 1})

    seen = look(yard)

    assert seen.queued == yard.store.llen(f"rq:queue:{QUEUE}") == 4
    assert (seen.limited, seen.scheduled, seen.dead) == (1, 1, 4)
    assert (seen.failed, seen.held, seen.unmatched, seen.approval) == (1, 1, 1, 1)
    assert [record.waits_for for record in seen.asking] == ["approval"]
    assert {record.id for record in seen.troubled} == {lost.id, held.id, failed.id}
    assert seen.newest[0].id == asks.id
    assert waits.id in [record.id for record in seen.newest]
    assert [(one.name, one.jobs) for one in seen.workers] == [("lives", 2)]
    assert seen.oldest_at == pytest.approx(before - 90)
    states = {one.name: one for one in seen.targets}
    assert states["production"].breaker == "open"
    assert (states["api"].calling, states["api"].waiting) == (1, 1)
    assert states["preview"].waiting == 1


def test_new_deliveries_are_counted_and_repeated_ones_are_not(
    yard: Yard, store: redis.Redis
) -> None:
    yard.receive("a", "b")
    yard.receive("b")

    assert sum(one.deliveries for one in look(yard).minutes) == 2
    [key] = store.keys("relay:pace:*")
    assert 0 < store.ttl(key) <= 7_200


def test_deliveries_are_stored_though_they_cannot_be_counted(yard: Yard) -> None:
    now = time.time()
    for at in (now, now + 60):
        yard.store.set(pace_key(at), "no hash")

    [job] = yard.receive("a")

    assert job.get_status() == JobStatus.QUEUED


def test_minutes_are_those_before_the_running_one() -> None:
    assert minutes(185, 3) == [60, 120, 180]
    fields: Mapping[bytes, bytes] = {b"deliveries": b"4", b"succeeded": b"3", b"held": b"1"}
    known = minute(180, fields)
    assert known == Minute(at=180, deliveries=4, succeeded=3, held=1)
    assert known.deploys == 4
    assert success_rate([known, Minute(at=240)]) == 0.75
