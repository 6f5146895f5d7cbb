"""The command `drain`: what it waits for, what it leaves, and how it tells."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis
from rq.job import Job, JobStatus
from rq.registry import ScheduledJobRegistry

from relay import draining
from tests.relay.yard import FAILED, QUEUE, Yard
from tests.screen import on_terminal

SCHEDULED = ScheduledJobRegistry.key_template.format(QUEUE)


def rest(yard: Yard, job: Job, waiting: str = "", due: float = 4e9) -> None:
    """Have a deploy wait for its time."""
    yard.store.lrem(f"rq:queue:{QUEUE}", 0, job.id)
    yard.store.zrem(f"rq:rl:{job.rate_limit_key}:allowed", job.id)
    yard.store.hset(job.key, mapping={"status": "scheduled", "waiting": waiting})
    yard.store.zadd(SCHEDULED, {job.id: due})


def test_a_queue_without_a_job_is_drained(yard: Yard) -> None:
    yard.end(yard.match("a"), JobStatus.FAILED, FAILED)

    told = yard.run("drain")

    assert told.stdout == "drained: nothing is queued, nothing runs\n"
    assert told.stderr == ""


def test_what_goes_on_by_itself_is_waited_for(yard: Yard, store: redis.Redis) -> None:
    yard.receive("a")
    yard.match("b", "api", repo="acme/api")
    [running, slotless, due, taken] = [yard.match(name, repo=f"acme/{name}") for name in "cdef"]
    for job in (running, slotless, taken):
        store.lrem(f"rq:queue:{QUEUE}", 0, job.id)
    store.zadd(f"rq:wip:{QUEUE}", {f"{running.id}:e": 4e9})
    store.zadd("rq:rl:target:production:rate_limited", {slotless.id: 1})
    rest(yard, due, "hours 2026-01-01T00:00:00Z", due=time.time() - 1)
    # So a stock worker has it between the queue and its run.
    store.lpush(f"rq:queue:{QUEUE}:intermediate", taken.id)

    told = yard.run("drain", "--timeout", "0", code=1)

    assert told.stderr == (
        "4 queued, 1 for a slot, 1 running, and no worker is alive\n"
        "not drained after 0 s: 4 queued, 1 for a slot, 1 running, and no worker is alive\n"
    )
    assert told.stdout == ""


def test_a_run_alone_is_waited_for(yard: Yard, store: redis.Redis) -> None:
    store.zadd(f"rq:wip:{QUEUE}", {"api--1:e": 4e9})

    told = yard.run("drain", "--timeout", "0", code=1)

    assert "not drained after 0 s: 0 queued, 0 for a slot, 1 running" in told.stderr


def test_what_waits_for_a_time_or_a_person_is_told_and_left(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "PAGE", 2)
    said = ["approval 2096-10-02T07:06:40Z", "hours 2096-10-02T07:06:40Z", "hours x", "paused ", ""]
    for number, waiting in enumerate(said):
        rest(yard, yard.match(str(number), repo=f"acme/{number}"), waiting, due=4e9 + number)

    told = yard.run("drain")
    all_of_it = yard.run("drain", "--all", "--timeout", "10ms", code=1)

    later = (
        "for a time or a person wait: approval 1, hours 2, paused 1, retry 1; the first is looked "
        "at again at 2096-10-02T07:06:40Z\n"
    )
    assert told.stdout == "drained: nothing is queued, nothing runs\n" + later
    assert all_of_it.stdout == later
    assert all_of_it.stderr.endswith(
        "not drained after 0.01 s: 0 queued, 0 for a slot, 0 running, 5 for their time, and no "
        "worker is alive\n"
    )
    monkeypatch.setattr(draining, "MOST_LATER", 2)
    assert ": approval 1, hours 1, and more; the first" in yard.run("drain").stdout


def test_what_is_in_the_spool_is_not_in_redis_yet(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path))
    (tmp_path / "spool").mkdir()
    file = tmp_path / "spool" / "1.spool"
    file.write_bytes(b"x" * 99)

    told = yard.run("drain", "--timeout", "0", code=1)
    file.unlink()

    assert "0 running, 99 bytes in the spool, and no worker is alive\n" in told.stderr
    assert yard.run("drain").stdout.startswith("drained")


def test_a_spool_that_cannot_be_looked_into_is_not_empty(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path))
    # As if it belonged to somebody else; root, who may run this, may look into any folder.
    (tmp_path / "spool").write_bytes(b"")

    told = yard.run("drain", "--timeout", "0", code=1)

    assert told.stdout == ""
    assert told.stderr == f"the spool {tmp_path}/spool cannot be looked into (Not a directory)\n"


def test_a_timeout_that_is_none(yard: Yard) -> None:
    assert "not a duration" in yard.run("drain", "--timeout", "soon", code=2).output


def test_a_bar_shows_how_far_it_is_and_ctrl_c_ends_it(yard: Yard) -> None:
    first, _ = yard.receive("a", "b")

    with on_terminal("drain", columns=120) as screen:
        screen.until(lambda screen: "2 queued, 0 for a slot, 0 running" in screen.text)
        yard.store.lrem(f"rq:queue:{QUEUE}", 0, first.id)
        screen.until(lambda screen: "1 queued, 0 for a slot, 0 running" in screen.text)
        assert " 50% " in screen.text
        screen.type("\x03")
        assert screen.end() == 130
    assert "stopped: 1 queued, 0 for a slot, 0 running, and no worker is alive" in screen.text

    with on_terminal("drain", columns=120) as screen:
        screen.until(lambda screen: "1 queued" in screen.text)
        yard.store.delete(f"rq:queue:{QUEUE}")
        assert screen.end() == 0
    assert "drained: nothing is queued, nothing runs" in screen.text
