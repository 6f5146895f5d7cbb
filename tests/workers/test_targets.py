"""How a target stands with all workers: breaker, what its platform asks for, pause."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest
import redis
from aiohttp import web
from rq.job import Job, JobStatus

from config.model import Target as ConfiguredTarget
from config.settings import load_settings
from relay.replays import Wish
from relay.store import connect_async
from tests.harness import PATIENCE, Target, sha_of, until
from tests.workers.desk import Desk, answering, shas
from workers import gate
from workers.replays import replay_deploys
from workers.targets import overview, pause, resume

API = ConfiguredTarget.model_validate({"preset": "http", "url": "http://a/"})


@pytest.fixture
def quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PROBE_LOOK", 1)


@pytest.mark.parametrize("keys", ["    breaker: {failures: 2, pause: 1s, cap: 1s}\n"])
async def test_a_breaker_opens_probes_and_closes(
    desk: Desk, target: Target, quick_probe: None, store: redis.Redis
) -> None:
    probed = asyncio.Event()

    async def slowly(_: web.Request) -> web.StreamResponse:
        await probed.wait()
        return web.Response(status=202)

    target.answers = [answering(500), answering(503), answering(502), slowly]
    target.answer = answering(202)
    desk.crew.start()

    for word in ("a", "b"):
        await desk.push(word, branch=word)
    [opened] = await desk.told("target.opened")
    assert (opened["target"], opened["level"], opened["reason"]) == ("api", "error", "HTTP 503")
    await desk.push("c", branch="c")
    [waiting] = await desk.told("deploy.waiting", sha=sha_of("c"), reason="breaker")
    assert (waiting["until"], waiting["attempt"]) == (opened["until"], 1)
    assert len(target.calls) == 2

    # The first probe fails, so the breaker opens again; the second one succeeds.
    await desk.told("target.opened", count=2)
    await until(lambda: len(target.calls) == 4)
    await desk.told("deploy.waiting", reason="probe", until=None)
    assert len(target.calls) == 4, "only the probe is called"
    assert desk.lines("target.closed") == []
    probed.set()

    await desk.told("target.closed", target="api")
    ends = await desk.told("deploy.succeeded", "deploy.failed", count=3)
    await until(lambda: store.keys("relay:target:*") + store.keys("relay:probe:*") == [])
    assert len(desk.lines("target.closed")) == 1
    # Who was the probe that failed has used up an attempt, and nobody else by waiting.
    assert len(target.calls) == 3 + sum(line["event"] == "deploy.succeeded" for line in ends)
    assert all(line["attempt"] <= 2 for line in ends)


@pytest.mark.parametrize("keys", ["    breaker: {failures: 2}\n"])
async def test_what_is_no_failure_of_the_target_opens_no_breaker(
    desk: Desk, target: Target
) -> None:
    target.answers = [answering(500), answering(404), answering(500)]
    desk.crew.start()

    # A failure, a refusal that breaks the row, and the failure of the first one's second attempt.
    await desk.push("a", branch="a")
    await desk.told("deploy.retry_scheduled")
    await desk.push("b", branch="b")
    ends = await desk.told("deploy.failed", count=2)

    assert [line["status"] for line in ends] == [404, 500]
    assert desk.lines("target.opened", "deploy.waiting") == []


@pytest.mark.parametrize("keys", ["    breaker: null\n"])
async def test_without_a_breaker_every_deploy_is_called(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    # What relay.yaml no longer wants may still be known.
    store.hset("relay:target:api", "until", time.time() + 3_600)
    target.answer = answering(500)
    desk.crew.start()

    words = "abcdef"
    for word in words:
        await desk.push(word, branch=word)

    await desk.told("deploy.failed", count=len(words))
    assert len(target.calls) == 2 * len(words)
    assert desk.lines("target.opened", "deploy.waiting") == []


@pytest.mark.parametrize(
    ("status", "keys"),
    [(429, "    breaker: {failures: 1}\n"), (503, "    breaker: {failures: 2}\n")],
)
async def test_a_platform_that_asks_for_a_pause_gets_it_from_all(
    desk: Desk, target: Target, status: int
) -> None:
    target.answers = [answering(status, Retry_After="1")]
    target.answer = answering(202)
    desk.crew.start()

    await desk.push("a", branch="a")
    [held] = await desk.told("target.held")
    assert (held["target"], held["reason"]) == ("api", f"HTTP {status}")
    await desk.push("b", branch="b")

    [waiting] = await desk.told("deploy.waiting", sha=sha_of("b"))
    assert (waiting["reason"], waiting["until"]) == ("platform", held["until"])
    assert len(target.calls) == 1
    ends = await desk.told("deploy.succeeded", count=2)
    assert {line["sha"]: line["attempt"] for line in ends} == {sha_of("a"): 2, sha_of("b"): 1}
    first, *others = [moment for moment, *_ in target.calls]
    assert all(moment - first >= 1 for moment in others)
    assert desk.lines("target.opened") == []


async def test_waiting_is_the_same_under_a_stock_worker(
    desk: Desk, target: Target, store: redis.Redis, relay: Any
) -> None:
    due = int(time.time()) + 3_600
    store.hset("relay:target:api", "held", due)
    worker = desk.crew.start()
    deploy = await desk.push("a")
    await desk.told("deploy.waiting")
    job = Job.fetch(deploy, connection=store)
    await desk.crew.reaches(job, JobStatus.SCHEDULED)
    worker.shut_down()
    await desk.crew.ended(worker)

    # Its time is moved, as `rq requeue` would not; a stock worker has it wait all the same.
    store.zadd("rq:scheduled:deploy-relay", {deploy: 0})
    url = relay.environ["RELAY_REDIS_URL"]
    stock = await relay.start(
        *(sys.executable, "-m", "rq.cli", "worker", "deploy-relay", "--url", url),
        *("--burst", "--with-scheduler"),
    )
    async with asyncio.timeout(PATIENCE):
        assert await stock.process.wait() == 0

    assert store.zscore("rq:scheduled:deploy-relay", deploy) in (due, due + 1)
    job.refresh()  # type: ignore[no-untyped-call]
    assert (job.get_status(), job.number_of_retries) == (JobStatus.SCHEDULED, 0)
    assert target.calls == []


@pytest.mark.parametrize("keys", ["    supersede: true\n"])
async def test_a_late_older_push_is_not_called(desk: Desk, target: Target) -> None:
    desk.crew.start()

    newer = await desk.push("c", before="b")
    await desk.told("deploy.succeeded", deploy=newer)
    older = await desk.push("b", before="a")

    [line] = await desk.told("deploy.superseded")
    assert (line["deploy"], line["by"]) == (older, newer)
    assert shas(target) == [sha_of("c")]


@pytest.mark.parametrize("keys", ["    supersede: true\n"])
async def test_what_waits_and_is_no_longer_the_newest_ends_at_once(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    store.hset("relay:target:api", "held", time.time() + 3_600)
    desk.crew.start()

    older = await desk.push("b", before="a")
    await desk.crew.reaches(Job.fetch(older, connection=store), JobStatus.SCHEDULED)
    newer = await desk.push("c", before="b")

    [line] = await desk.told("deploy.superseded")
    assert (line["deploy"], line["by"]) == (older, newer)
    assert target.calls == []


@pytest.mark.parametrize("keys", ["    supersede: true\n"])
async def test_a_paused_target_keeps_the_newest_and_calls_it_when_resumed(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    assert pause(store, "api")
    assert not pause(store, "api"), "it is paused already"
    desk.crew.start()

    first = await desk.push("b", before="a")
    [waiting] = await desk.told("deploy.waiting", deploy=first)
    assert (waiting["reason"], waiting["until"]) == ("paused", None)
    await desk.crew.reaches(Job.fetch(first, connection=store), JobStatus.SCHEDULED)
    newest = await desk.push("c", before="b")
    await desk.told("deploy.superseded", deploy=first, by=newest)
    await desk.crew.reaches(Job.fetch(newest, connection=store), JobStatus.SCHEDULED)
    # What waits for something else is not woken by resuming.
    store.hset("rq:job:api--other", "waiting", "breaker 2026-01-01T00:00:00Z")
    store.zadd("rq:scheduled:deploy-relay", {"api--other": 2e10, "web--other": 2e10})
    [row] = overview(store, {"api": API}, "deploy-relay")
    assert (row.calling, row.waiting, row.state[:13]) == (0, 2, "paused since ")

    assert resume(store, "api", "deploy-relay")

    [succeeded] = await desk.told("deploy.succeeded")
    assert (succeeded["deploy"], succeeded["attempt"]) == (newest, 1)
    assert shas(target) == [sha_of("c")]
    assert store.zcard("rq:scheduled:deploy-relay") == 2
    assert not resume(store, "api", "deploy-relay")
    assert store.hget(f"rq:job:{newest}", "waiting") == b""


def test_a_resume_that_is_repeated_wakes_what_still_waits(store: redis.Redis) -> None:
    """As after one that too few replicas confirmed."""
    store.hset("rq:job:api--left", "waiting", "paused ")
    store.zadd("rq:scheduled:deploy-relay", {"api--left": 2e10})

    assert not resume(store, "api", "deploy-relay")

    due = store.zscore("rq:scheduled:deploy-relay", "api--left")
    assert due is not None
    assert due <= time.time()
    assert not store.exists("relay:target:api")


def test_a_pause_that_is_repeated_keeps_its_beginning(store: redis.Redis) -> None:
    assert pause(store, "api")
    since = store.hget("relay:target:api", "paused")

    assert not pause(store, "api")

    assert store.hget("relay:target:api", "paused") == since


def test_how_a_target_stands_in_words(store: redis.Redis) -> None:
    def state(**fields: float) -> str:
        store.delete("relay:target:api")
        for field, value in fields.items():
            store.hset("relay:target:api", field, value)
        [row] = overview(store, {"api": API}, "deploy-relay")
        return row.state

    assert state() == "ready"
    assert state(until=4e9) == "breaker open until 2096-10-02T07:06:40Z"
    assert state(until=1, opened=1) == "breaker open, the next call is the probe"
    assert state(until=4e9, held=4e9 - 1.5).startswith(
        "its platform wants no calls until 2096-10-0"
    )
    assert state(until=4e9, held=4e9, paused=0.5) == "paused since 1970-01-01T00:00:01Z"


@pytest.mark.parametrize("keys", ["    debounce: {quiet: 1s, cap: 1m}\n"])
async def test_of_a_burst_only_the_newest_is_called_and_not_before_it_is_over(
    desk: Desk, target: Target
) -> None:
    desk.crew.start()

    first = await desk.push("b", before="a")
    [waiting] = await desk.told("deploy.waiting", deploy=first)
    assert waiting["reason"] == "debounce"
    second = await desk.push("c", before="b")
    third = await desk.push("d", before="c")
    last = time.monotonic()

    [succeeded] = await desk.told("deploy.succeeded")
    assert (succeeded["deploy"], succeeded["attempt"]) == (third, 1)
    superseded = await desk.told("deploy.superseded", count=2)
    assert {line["deploy"] for line in superseded} == {first, second}
    [(called, *_)] = target.calls
    assert called - last >= 0.9
    assert len(desk.lines("deploy.waiting", deploy=third)) == 1


@pytest.mark.parametrize("keys", ["    debounce: {quiet: 1s, cap: 1m}\n"])
async def test_a_replay_waits_for_a_paused_target_and_for_nothing_else(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    target.answers = [answering(404)]
    desk.crew.start()
    old = await desk.push("b", before="a")
    await desk.told("deploy.failed", deploy=old)
    pause(store, "api")
    newer = await desk.push("c", before="b")
    await desk.crew.reaches(Job.fetch(newer, connection=store), JobStatus.SCHEDULED)

    async with connect_async(desk.crew.url, timeout=5) as server:
        [done] = await replay_deploys(server, load_settings(), [Wish(old, "ops")])

    # It is what a person wants now, so what waited gives way at once.
    await desk.told("deploy.superseded", deploy=newer, by=done.new)
    job = Job.fetch(done.new, connection=store)
    await desk.crew.reaches(job, JobStatus.SCHEDULED)
    store.zadd("rq:scheduled:deploy-relay", {done.new: 0})
    await until(lambda: (store.zscore("rq:scheduled:deploy-relay", done.new) or 0) > 0)
    job.refresh()  # type: ignore[no-untyped-call]
    assert job.number_of_retries == 0
    resume(store, "api", "deploy-relay")

    [succeeded] = await desk.told("deploy.succeeded")
    assert (succeeded["deploy"], succeeded["attempt"]) == (done.new, 1)
    assert len(desk.lines("deploy.replayed", deploy=done.new, replay_of=old, by="ops")) == 1
    assert [line["reason"] for line in desk.lines("deploy.waiting", deploy=done.new)] == ["paused"]


@pytest.mark.parametrize("keys", ["    on_uncertain: retry\n"])
async def test_an_attempt_that_was_cut_off_counts_although_the_next_one_waits(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    pause(store, "api")
    desk.crew.start()
    deploy = await desk.push("a")
    job = Job.fetch(deploy, connection=store)
    await desk.crew.reaches(job, JobStatus.SCHEDULED)

    store.hset(job.key, "calling", 1)
    for _ in range(2):
        store.zadd("rq:scheduled:deploy-relay", {deploy: 0})
        await until(lambda: (store.zscore("rq:scheduled:deploy-relay", deploy) or 0) > 0)
        assert store.hmget(job.key, "calling", "number_of_retries") == [None, b"1"]
    resume(store, "api", "deploy-relay")

    [succeeded] = await desk.told("deploy.succeeded")
    assert (succeeded["deploy"], succeeded["attempt"]) == (deploy, 2)
    assert [line["attempt"] for line in desk.lines("deploy.uncertain")] == [1]
    assert len(target.calls) == 1


@pytest.mark.parametrize("keys", ["    breaker: {failures: 1}\n    timeout: 200ms\n"])
async def test_a_call_that_is_not_answered_is_a_failure_of_the_target(
    desk: Desk, target: Target
) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    target.answer = never
    desk.crew.start()

    deploy = await desk.push("a")

    await desk.told("deploy.failed", deploy=deploy)
    [opened] = desk.lines("target.opened")
    assert opened["reason"] == "no answer in time"
