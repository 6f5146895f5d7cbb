"""What waits of the release before is found, in Redis and in its spool."""

from __future__ import annotations

import pickle
import time
import zlib
from pathlib import Path

import pytest
import redis
from rq.intermediate_queue import IntermediateQueue
from rq.rate_limit import RateLimitRegistry

from config.settings import Settings
from relay.errors import FormerRelease
from relay.queue.former_release import (
    former_function,
    refuse_former_release,
    spooled_deliveries,
)
from relay.queue.rq_job import Wakeup, job_hash, rq_time

QUEUE = "deploy-relay"

FUNCTIONS = {
    "deliver": "workers.jobs.deliver",
    "deploy": "workers.jobs.deploy",
    "notify": "workers.notices.notify",
}


def job_data(kind: str) -> bytes:
    """RQ's field ``data`` as 3e8aa98 wrote it."""
    text = '{"id":"github--1","source":"github","event":{"event":"push","repo":"acme/web"}}'
    return pickle.dumps((FUNCTIONS[kind], None, (text,), {}), protocol=pickle.HIGHEST_PROTOCOL)


def add_job(store: redis.Redis, id_: str, data: bytes) -> str:
    """A job of that release, of which only the hash is there."""
    fields = {"data": data, "status": "queued", "origin": QUEUE, "description": id_, "receipt": "a"}
    store.hset(f"rq:job:{id_}", mapping=fields)  # type: ignore[arg-type]
    return id_


def frame(record: bytes) -> bytes:
    """A record as that release wrote it to its spool."""
    size = len(record).to_bytes(4, "big")
    return b"\xffrec" + size + zlib.crc32(record, len(record)).to_bytes(4, "big") + record


@pytest.fixture
def settings(tmp_path: Path, server_socket: Path) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=f"unix://{server_socket}")  # type: ignore[arg-type]


async def refusal(settings: Settings) -> str:
    """Why a process does not start; empty if it does."""
    try:
        await refuse_former_release(settings)
    except FormerRelease as error:
        return str(error)
    return ""


async def test_nothing_waits_in_an_empty_installation(
    settings: Settings, store: redis.Redis
) -> None:
    assert await refusal(settings) == ""


async def test_deliveries_in_the_queue_are_refused(settings: Settings, store: redis.Redis) -> None:
    store.rpush(f"rq:queue:{QUEUE}", add_job(store, "github--1", job_data("deliver")))
    assert await refusal(settings) == (
        "1 delivery of the release before waits: start it again and run deploy-relay drain"
    )
    store.rpush(f"rq:queue:{QUEUE}", add_job(store, "github--2", job_data("deliver")))
    assert await refusal(settings) == (
        "2 deliveries of the release before wait: start it again and run deploy-relay drain"
    )


async def test_each_place_where_its_jobs_can_be_is_looked_at(
    settings: Settings, store: redis.Redis
) -> None:
    key = f"rq:queue:{QUEUE}"
    store.rpush(
        IntermediateQueue.get_intermediate_queue_key(key),
        add_job(store, "taken", job_data("deliver")),
    )
    store.zadd(f"rq:wip:{QUEUE}", {f"{add_job(store, 'runs', job_data('deploy'))}:abcdef": 1})
    store.sadd(RateLimitRegistry.rl_keys_key, "target")
    limited = add_job(store, "limited", job_data("deploy"))
    store.zadd("rq:rl:target:rate_limited", {limited: 1})
    # RQ compresses a job that it writes itself, such as one that is tried again.
    compressed = zlib.compress(job_data("notify"))
    store.zadd(f"rq:scheduled:{QUEUE}", {add_job(store, "later", compressed): time.time() + 60})
    assert await refusal(settings) == (
        "1 delivery, 2 deploys and 1 notice of the release before wait: start it again and run "
        "deploy-relay drain --all, and approve, resume or cancel what waits for a person"
    )


async def test_what_has_ended_there_does_not_matter(settings: Settings, store: redis.Redis) -> None:
    store.zadd(f"rq:finished:{QUEUE}", {add_job(store, "done", job_data("deliver")): 1e12})
    store.zadd(f"rq:failed:{QUEUE}", {add_job(store, "failed", job_data("deploy")): 1e12})
    store.rpush("rq:queue:another", add_job(store, "another's", job_data("deliver")))
    store.rpush(f"rq:queue:{QUEUE}", "gone")
    assert await refusal(settings) == ""


async def test_jobs_of_this_release_and_of_others_are_no_reason(
    settings: Settings, store: redis.Redis
) -> None:
    for wakeup in (Wakeup("deliveries", 1, 3), Wakeup("deploy", 7, 7)):
        store.hset(
            f"rq:job:{wakeup.id}",
            mapping=job_hash(wakeup, QUEUE, rq_time()),  # type: ignore[arg-type]
        )
        store.rpush(f"rq:queue:{QUEUE}", wakeup.id)
    other = pickle.dumps(("theirs.work", None, ("workers.jobs",), {}))
    store.rpush(f"rq:queue:{QUEUE}", add_job(store, "theirs", other))
    assert await refusal(settings) == ""


async def test_spooled_deliveries_are_refused_though_redis_is_away(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        redis_url=f"unix://{tmp_path}/none.sock",  # type: ignore[arg-type]
    )
    assert await refusal(settings) == ""
    spool = tmp_path / "spool"
    spool.mkdir()
    records = frame(b'{"receipt":"a"}') + frame(b'{"receipt":"b"}')
    (spool / "1-00000001.spool").write_bytes(bytes(8) + records)
    assert await refusal(settings) == (
        "2 deliveries of the release before wait: start it again and run deploy-relay drain"
    )


def test_of_a_spool_file_what_was_forwarded_does_not_count(tmp_path: Path) -> None:
    first, second = frame(b'{"receipt":"a"}'), frame(b'{"receipt":"b"}')
    file = tmp_path / "1-00000001.spool"
    done = 8 + len(first)
    file.write_bytes(done.to_bytes(8, "big") + first + second)
    assert spooled_deliveries(tmp_path) == 1
    file.write_bytes((done + len(second)).to_bytes(8, "big") + first + second)
    assert spooled_deliveries(tmp_path) == 0
    file.write_bytes(bytes(8))
    (tmp_path / "1-00000002.spool.aside").write_bytes(bytes(8) + first)
    assert spooled_deliveries(tmp_path) == 0


def test_nothing_is_unpickled() -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return pytest.fail, ("it was unpickled",)

    data = pickle.dumps(("workers.jobs.deliver", None, (Harmful(),), {}))
    assert former_function(data) == "deliver"
    assert former_function(zlib.compress(data)) == "deliver"
    assert former_function(b"\x80") == former_function(b"") == ""
    assert former_function(b'["workers.jobs.deliver", null, [1, 2], {}]') == ""
    assert former_function(zlib.compress(bytes(10_000_000))) == ""
