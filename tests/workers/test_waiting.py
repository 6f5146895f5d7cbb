"""What makes a deploy wait by the target's own rules: rates, hours, a person's approval."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry

from config.model import Target as ConfiguredTarget
from config.settings import load_settings
from relay.approving import approve
from relay.archive import Archive
from relay.cancelling import cancel
from relay.filtering import Filter
from relay.replays import Done, Wish
from relay.store import connect_async
from tests.harness import Relay, Target, sha_of, until
from tests.workers.desk import YAML, Desk, answering, shas
from workers import gate
from workers.runtime import CALLING_FIELD, Runtime, project
from workers.targets import overview, pause, resume

SCHEDULED = "rq:scheduled:deploy-relay"


async def approved(desk: Desk, *ids: str, by: str = "lead", dry: bool = False) -> list[Done]:
    async with connect_async(desk.crew.url, timeout=5) as server:
        return await approve(server, load_settings(), [Wish(id_, by, dry=dry) for id_ in ids])


async def rests(desk: Desk, store: redis.Redis, deploy: str) -> Job:
    job = Job.fetch(deploy, connection=store)
    await desk.crew.reaches(job, JobStatus.SCHEDULED)
    return job


@pytest.mark.parametrize("keys", ["    rate: [2/2s, 100/d]\n"])
async def test_no_more_calls_than_the_rate_allows_and_in_the_order_of_arrival(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    desk.crew.start()

    words = "abcde"
    for word in words:
        await desk.push(word, branch=word)
    ends = await desk.told("deploy.succeeded", count=len(words))

    assert {line["attempt"] for line in ends} == {1}
    moments = [moment for moment, *_ in target.calls]
    # A moment is taken when the request arrives, and turns are counted before it is sent.
    assert all(last - first > 1.9 for first, last in zip(moments, moments[2:], strict=False))
    waiting = desk.lines("deploy.waiting", sha=sha_of("e"))
    assert {line["reason"] for line in waiting} == {"rate"}
    assert waiting[0]["until"] is not None
    assert store.zcard("relay:calls:api") == len(words)
    assert store.zcard("relay:turns:api") == 0


@pytest.mark.parametrize("keys", ["    rate: 1/h\n    supersede: true\n"])
async def test_the_newest_of_a_branch_inherits_the_turn(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    desk.crew.start()
    await desk.push("a")
    await desk.told("deploy.succeeded")
    older = await desk.push("b", before="a")
    [waiting] = await desk.told("deploy.waiting", deploy=older)
    await rests(desk, store, older)

    newer = await desk.push("c", before="b")

    [inherits] = await desk.told("deploy.waiting", deploy=newer)
    assert inherits["until"] == waiting["until"]
    await desk.told("deploy.superseded", deploy=older, by=newer)
    assert len(target.calls) == 1


@pytest.mark.parametrize(
    "keys", ["    rate: 1/h\n    breaker: {failures: 1, pause: 1s, cap: 1s}\n"]
)
async def test_a_probe_that_has_no_turn_lets_others_be_the_probe(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    target.answers = [answering(500)]
    desk.crew.start()
    await desk.push("a", branch="a")
    await desk.told("target.opened")

    deploy = await desk.push("b", branch="b")

    await desk.told("deploy.waiting", deploy=deploy, reason="rate")
    await rests(desk, store, deploy)
    await until(lambda: store.keys("relay:probe:*") == [])
    assert len(target.calls) == 1


@pytest.mark.parametrize("keys", ["    breaker: {failures: 1}\n"])
async def test_a_probe_whose_address_is_refused_lets_others_be_the_probe(
    desk: Desk, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_ALLOWED_NETWORKS", "")
    store.hset("relay:target:api", mapping={"until": time.time() - 1, "opened": 1})
    desk.crew.start()

    await desk.push("a")

    [failed] = await desk.told("deploy.failed")
    assert failed["reason"].startswith("the target's address is refused: loopback")
    assert store.keys("relay:probe:*") == []


TODAY = datetime.now(UTC).date()
"""Read once, so that the tests agree on it also at midnight."""


def closed_now() -> str:
    """A freeze of this day and the next one."""
    return f"{TODAY - timedelta(1)} to {TODAY + timedelta(1)}"


HOURS = f"    hours: {{zone: UTC, freeze: {closed_now()}}}\n"


@pytest.mark.parametrize("keys", [HOURS + "    supersede: true\n"])
async def test_in_a_freeze_deploys_wait_and_say_until_when(
    desk: Desk,
    relay: Relay,
    target: Target,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "HOURS_LOOK", 1)
    over = TODAY + timedelta(2)
    worker = desk.crew.start()

    first = await desk.push("b", before="a")
    [waiting] = await desk.told("deploy.waiting", deploy=first)
    newest = await desk.push("c", before="b")
    await desk.told("deploy.superseded", deploy=first, by=newest)
    await desk.told("deploy.waiting", deploy=newest)
    job = await rests(desk, store, newest)

    assert (waiting["reason"], waiting["until"]) == ("hours", f"{over}T00:00:00Z")
    configured = ConfiguredTarget.model_validate(
        {"preset": "http", "url": "http://a/", "hours": {"zone": "UTC", "freeze": closed_now()}}
    )
    [row] = overview(store, {"api": configured}, "deploy-relay")
    assert row.state == f"outside its hours until {over}T00:00:00Z"
    async with connect_async(desk.crew.url, timeout=5) as server:
        archive = Archive(server, "deploy-relay")
        found = await archive.find("deploy", Filter(frozenset({"waiting"})), 9)
        details = await archive.details("deploy", newest)
        assert (await archive.find("deploy", Filter(frozenset({"retrying"})), 9)).ids == []
    assert details is not None
    assert (found.ids, [run.how for run in details.runs]) == ([newest], ["waited"])
    record = details.record
    assert (record.id, record.status) == (newest, "waiting")
    assert (record.waits_for, record.waits_until) == ("hours", f"{over}T00:00:00Z")

    # Hours that were changed meanwhile count from the next look on.
    worker.shut_down()
    await desk.crew.ended(worker)
    relay.write(YAML.replace("KEYS\n", "    supersede: true\n"))
    project.cache_clear()
    desk.crew.start()
    [succeeded] = await desk.told("deploy.succeeded")

    assert (succeeded["deploy"], succeeded["attempt"]) == (newest, 1)
    assert shas(target) == [sha_of("c")]
    assert len(desk.lines("deploy.waiting", deploy=newest)) == 1
    job.refresh()  # type: ignore[no-untyped-call]
    assert job.get_status() == JobStatus.FINISHED


@pytest.mark.parametrize("keys", ["    approval: required\n    window: 1000s\n"])
async def test_a_deploy_waits_until_somebody_approves_it(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    desk.crew.start()
    deploy, other = await desk.push("a", branch="a"), await desk.push("b", branch="b")
    [waiting] = await desk.told("deploy.waiting", deploy=deploy)
    await rests(desk, store, deploy)
    job = await rests(desk, store, other)
    expires = job.created_at + timedelta(days=7, seconds=1)
    assert waiting["reason"] == "approval"
    assert waiting["until"][:16] == f"{expires:%Y-%m-%dT%H:%M}"

    # It is not forgotten that it waits, however long: a second webhook is a duplicate.
    identities = store.keys("relay:deploy:*")
    [identity] = [key for key in identities if store.hget(key, "job") == deploy.encode()]
    store.expire(identity, 5)
    store.zadd(SCHEDULED, {deploy: 0})
    await until(lambda: store.ttl(identity) > 900)
    await rests(desk, store, deploy)

    assert await approved(desk, deploy, dry=True) == [Done(deploy)]
    assert await approved(desk, deploy, "api--unknown", by="lead") == [
        Done(deploy),
        Done("api--unknown", refusal="unknown"),
    ]

    [succeeded] = await desk.told("deploy.succeeded")
    assert (succeeded["deploy"], succeeded["attempt"]) == (deploy, 1)
    [line] = desk.lines("deploy.approved")
    assert (line["deploy"], line["by"]) == (deploy, "lead")
    assert shas(target) == [sha_of("a")]
    assert job.get_status() == JobStatus.SCHEDULED
    assert await approved(desk, deploy) == [Done(deploy, refusal="gone", other="finished")]


@pytest.mark.parametrize("keys", ["    approval: {expires: 1s}\n"])
async def test_a_deploy_that_nobody_approves_in_time_fails(desk: Desk, target: Target) -> None:
    desk.crew.start()

    deploy = await desk.push("a")

    [failed] = await desk.told("deploy.failed")
    [waiting] = desk.lines("deploy.waiting")
    assert failed["deploy"] == deploy
    assert failed["reason"] == f"nobody approved it until {waiting['until']}"
    assert target.calls == []
    assert await approved(desk, deploy) == [Done(deploy, refusal="gone", other="failed")]


async def test_only_what_waits_for_it_is_approved(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    store.hset("relay:target:api", "paused", time.time())
    desk.crew.start()
    deploy = await desk.push("a")
    await rests(desk, store, deploy)

    assert await approved(desk, deploy) == [Done(deploy, refusal="unasked")]
    assert await approved(desk, "github--a") == [Done("github--a", refusal="unknown")]
    assert store.hget(f"rq:job:{deploy}", "approved_by") is None


@pytest.mark.parametrize("keys", ["    approval: required\n"])
async def test_who_approved_first_is_told_to_the_second(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    store.hset("relay:target:api", "paused", time.time())
    desk.crew.start()
    deploy = await desk.push("a")
    await rests(desk, store, deploy)

    first, second = await asyncio.gather(
        approved(desk, deploy, by="one"), approved(desk, deploy, by="two")
    )

    won, [lost] = (first, second) if not first[0].refusal else (second, first)
    assert won == [Done(deploy)]
    assert lost.refusal in ("approved", "unasked")
    await desk.told("deploy.waiting", deploy=deploy, reason="paused")
    assert len(desk.lines("deploy.approved")) == 1


@pytest.mark.parametrize("keys", ["    rate: 1/h\n    window: 100s\n    supersede: true\n"])
async def test_what_waits_longer_than_its_window_stays_known_until_it_looks_again(
    desk: Desk, store: redis.Redis
) -> None:
    desk.crew.start()
    await desk.push("a", branch="a")
    await desk.told("deploy.succeeded")

    deploy = await desk.push("b", branch="b")
    await rests(desk, store, deploy)

    looks = store.zscore(SCHEDULED, deploy) or 0
    found = store.keys("relay:deploy:*") + store.keys("relay:latest:*")
    names = [key if isinstance(key, str) else key.decode() for key in found]
    known = [name for name in names if store.type(name) == b"hash"]
    known = [name for name in known if store.hget(name, "job") == deploy.encode()]
    known += [name for name in names if name.removesuffix(":moves") in known and name not in known]
    assert len(known) == 3
    assert all(time.time() + store.ttl(name) > looks + 95 for name in known)


@pytest.mark.parametrize("keys", ["    rate: 9/h\n"])
async def test_a_deploy_that_is_requeued_counts_as_another_call(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    target.answers = [answering(404)]
    desk.crew.start()
    deploy = await desk.push("a")
    await desk.told("deploy.failed")
    job = Job.fetch(deploy, connection=store)
    await desk.crew.reaches(job, JobStatus.FAILED)

    FailedJobRegistry(queue=desk.crew.queue).requeue(deploy)

    await desk.told("deploy.succeeded", deploy=deploy)
    assert len(target.calls) == 2
    assert store.zcard("relay:calls:api") == 2


@pytest.mark.parametrize("keys", ["    rate: 1/d\n"])
@pytest.mark.parametrize("changed", ["", "    rate: 2/d\n"])
async def test_a_rate_that_is_changed_counts_from_the_next_look_on(
    desk: Desk,
    relay: Relay,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    changed: str,
) -> None:
    monkeypatch.setattr(gate, "RATE_LOOK", 1)
    worker = desk.crew.start()
    await desk.push("a", branch="a")
    await desk.told("deploy.succeeded")
    deploy = await desk.push("b", branch="b")
    await rests(desk, store, deploy)

    worker.shut_down()
    await desk.crew.ended(worker)
    relay.write(YAML.replace("KEYS\n", changed))
    project.cache_clear()
    desk.crew.start()

    await desk.told("deploy.succeeded", deploy=deploy)
    assert len(desk.lines("deploy.waiting", deploy=deploy)) == 1


@pytest.mark.parametrize("keys", ["    rate: 1/d\n"])
async def test_what_is_cancelled_gives_its_turn_back(desk: Desk, store: redis.Redis) -> None:
    desk.crew.start()
    await desk.push("a", branch="a")
    await desk.told("deploy.succeeded")
    first = await desk.push("b", branch="b")
    [waiting] = await desk.told("deploy.waiting", deploy=first)
    await rests(desk, store, first)

    async with connect_async(desk.crew.url, timeout=5) as server:
        assert await cancel(server, load_settings(), "deploy", [Wish(first, "ops")]) == [
            Done(first)
        ]

    second = await desk.push("c", branch="c")
    [behind] = await desk.told("deploy.waiting", deploy=second)
    assert behind["until"] == waiting["until"]


@pytest.mark.parametrize("keys", ["    approval: {expires: 1s}\n"])
async def test_an_expired_deploy_that_is_requeued_asks_again(
    desk: Desk, store: redis.Redis
) -> None:
    desk.crew.start()
    deploy = await desk.push("a")
    await desk.told("deploy.failed")
    await desk.crew.reaches(Job.fetch(deploy, connection=store), JobStatus.FAILED)

    FailedJobRegistry(queue=desk.crew.queue).requeue(deploy)

    _, failed = await desk.told("deploy.failed", count=2)
    first, again = desk.lines("deploy.waiting", deploy=deploy, reason="approval")
    assert first["until"] < again["until"]
    assert failed["reason"] == f"nobody approved it until {again['until']}"


async def test_a_deploy_older_than_the_approval_that_it_needs_by_now_is_asked_for(
    desk: Desk, relay: Relay, target: Target, store: redis.Redis
) -> None:
    store.hset("relay:target:api", "paused", time.time())
    worker = desk.crew.start()
    deploy = await desk.push("a")
    await rests(desk, store, deploy)
    worker.shut_down()
    await desk.crew.ended(worker)
    store.hset(f"rq:job:{deploy}", "created_at", "2026-01-01T00:00:00.000000Z")
    relay.write(YAML.replace("KEYS\n", "    approval: required\n"))
    project.cache_clear()

    store.zadd(SCHEDULED, {deploy: 0})
    desk.crew.start()

    [waiting] = await desk.told("deploy.waiting", deploy=deploy, reason="approval")
    assert waiting["until"] > f"{datetime.now(UTC) + timedelta(days=6):%Y-%m-%dT%H:%M:%SZ}"
    await rests(desk, store, deploy)
    resume(store, "api", "deploy-relay")
    assert await approved(desk, deploy) == [Done(deploy)]
    await desk.told("deploy.succeeded", deploy=deploy)


@pytest.mark.parametrize("keys", ["    approval: required\n"])
async def test_an_approval_is_for_all_attempts_and_is_told_once(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    target.answers = [answering(503)]
    desk.crew.start()
    deploy = await desk.push("a")
    await rests(desk, store, deploy)

    await approved(desk, deploy)

    [succeeded] = await desk.told("deploy.succeeded")
    assert succeeded["attempt"] == 2
    assert len(desk.lines("deploy.approved")) == 1
    assert len(desk.lines("deploy.waiting")) == 1


@pytest.mark.parametrize("fraction", [0.001, 0.999])
async def test_what_waits_looks_no_earlier_than_its_time(
    desk: Desk, store: redis.Redis, fraction: float
) -> None:
    held = int(time.time()) + 100 + fraction
    store.hset("relay:target:api", "held", held)
    desk.crew.start()

    deploy = await desk.push("a")

    await rests(desk, store, deploy)
    looks = store.zscore(SCHEDULED, deploy) or 0
    assert held <= looks <= held + 3


@pytest.mark.parametrize("keys", ["    rate: 1/h\n    breaker: {failures: 1}\n"])
async def test_a_call_whose_note_is_not_taken_gives_its_turn_and_the_probe_back(
    desk: Desk, target: Target, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.hset("relay:target:api", mapping={"until": time.time() - 1, "opened": 1})
    send = Runtime.send
    refused: list[object] = []

    def sends(self: Runtime, *command: str | bytes | int) -> asyncio.Future[Any]:
        # As where too few replicas have the note.
        if CALLING_FIELD in command and command[0] == "HSET" and not refused:
            refused.append(command)
            raise redis.exceptions.ConnectionError
        return send(self, *command)

    monkeypatch.setattr(Runtime, "send", sends)
    desk.crew.start()

    deploy = await desk.push("a")

    await desk.told("deploy.retry_scheduled", deploy=deploy)
    await until(lambda: store.keys("relay:calls:*") + store.keys("relay:probe:*") == [])
    assert target.calls == []
    await rests(desk, store, deploy)
    store.zadd(SCHEDULED, {deploy: 0})
    [succeeded] = await desk.told("deploy.succeeded", "deploy.waiting")
    assert succeeded["event"] == "deploy.succeeded"


@pytest.mark.parametrize("keys", ["    rate: 1/h\n    breaker: {failures: 1}\n"])
async def test_a_probe_whose_turn_redis_refuses_lets_others_be_the_probe(
    desk: Desk, store: redis.Redis
) -> None:
    store.hset("relay:target:api", mapping={"until": time.time() - 1, "opened": 1})
    store.set("relay:calls:api", "no sorted set")
    desk.crew.start()

    deploy = await desk.push("a")

    await desk.told("deploy.retry_scheduled", deploy=deploy)
    assert store.keys("relay:probe:*") == []


ONE_BY_ONE = "    concurrency: 1\n"


@pytest.mark.parametrize("keys", [ONE_BY_ONE])
async def test_one_by_one_a_retry_comes_before_what_came_later(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    target.answers = [answering(500)]
    desk.crew.start()

    first = await desk.push("a")
    await desk.told("deploy.retry_scheduled", deploy=first)
    second = await desk.push("b")
    third = await desk.push("c")
    await desk.told("deploy.succeeded", count=3)

    assert shas(target) == [sha_of(word) for word in "aabc"]
    waiting = desk.lines("deploy.waiting", deploy=second)
    assert {(line["reason"], line["behind"]) for line in waiting} == {("order", first)}
    assert desk.lines("deploy.succeeded", deploy=third)[0]["attempt"] == 1
    # Only the last one may still stand in the line, until somebody looks.
    assert store.zrange("relay:line:api", 0, -1) == [third.encode()]


@pytest.mark.parametrize("keys", [ONE_BY_ONE])
async def test_one_by_one_what_waited_together_goes_in_the_order_of_arrival(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    pause(store, "api")
    desk.crew.start()
    words = "abcdefgh"
    for word in words:
        await rests(desk, store, await desk.push(word, branch=word))

    resume(store, "api", "deploy-relay")
    await desk.told("deploy.succeeded", count=len(words))

    assert shas(target) == [sha_of(word) for word in words]


@pytest.mark.parametrize("keys", [ONE_BY_ONE + "    approval: required\n"])
async def test_one_by_one_who_waits_for_a_person_holds_up_nobody(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    desk.crew.start()
    deploys = [await desk.push(word, branch=word) for word in "abc"]
    for deploy in deploys:
        await rests(desk, store, deploy)

    await approved(desk, deploys[1])

    [succeeded] = await desk.told("deploy.succeeded")
    assert succeeded["deploy"] == deploys[1]
    assert shas(target) == [sha_of("b")]


@pytest.mark.parametrize("keys", [ONE_BY_ONE])
async def test_one_by_one_what_was_cancelled_or_has_failed_holds_up_nobody(
    desk: Desk, target: Target, store: redis.Redis
) -> None:
    target.answers = [answering(404)]
    desk.crew.start()
    await desk.push("a")
    await desk.told("deploy.failed")
    pause(store, "api")
    second, third = await desk.push("b"), await desk.push("c")
    for deploy in (second, third):
        await rests(desk, store, deploy)
    async with connect_async(desk.crew.url, timeout=5) as server:
        await cancel(server, load_settings(), "deploy", [Wish(second, "lead")])
    resume(store, "api", "deploy-relay")

    [succeeded] = await desk.told("deploy.succeeded")
    assert succeeded["deploy"] == third
    assert shas(target) == [sha_of("a"), sha_of("c")]
    assert desk.lines("deploy.waiting", reason="order") == []
