"""The bound of the history: what is stripped, what is not, and what a stripped job still does."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import redis
from redis.asyncio import Redis
from rq.job import Job, JobStatus

from config.settings import load_settings
from relay.archive import Archive
from relay.attempts_kept import attempts_key
from relay.briefs import RESULTS_PREFIX
from relay.events.event import Delivery, Person, Push
from relay.records import DELIVERY_JOB
from relay.replays import Wish, replay_deliveries
from relay.statuses import ACTIVE_IN_RQ, Kind
from relay.store import connect_async
from tests.harness import Relay, Target, sha_of, until
from tests.workers.crew import Crew
from tests.workers.desk import answering
from workers.history import STEP, History, history_key
from workers.replays import replay_deploys

QUEUE = "deploy-relay"


@pytest.fixture
async def server(store: redis.Redis, server_socket: Path) -> AsyncIterator[Redis]:
    connection = connect_async(f"unix://{server_socket}", timeout=5)
    yield connection
    await connection.aclose()


class Books:
    """What stands in Redis of jobs that ended."""

    def __init__(self, crew: Crew, relay: Relay, audited: io.BytesIO) -> None:
        self.crew = crew
        self.store: Any = crew.store
        self._relay = relay
        self._audited = audited

    def lines(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in self._audited.getvalue().splitlines()]
        return [one for one in told if one["event"] == event and fields.items() <= one.items()]

    async def told(self, event: str, *, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Lines of the worker's audit, once there are so many."""
        await until(lambda: len(self.lines(event, **fields)) >= count)
        return self.lines(event, **fields)

    async def push(self, name: str, *, repo: str = "acme/web", before: str = "") -> str:
        """A push that was accepted."""
        status, answer = await self._relay.push(
            delivery=name,
            repo=repo,
            before=sha_of(before or f"before {name}"),
            after=sha_of(name),
        )
        assert status == 202, answer
        return str(answer["delivery"])

    async def deployed(self, name: str, **push: Any) -> tuple[str, str]:
        """The delivery and the deploy of a push, once both have ended well."""
        delivery = await self.push(name, **push)
        [line] = await self.told("deploy.succeeded", sha=sha_of(name))
        await self.stands(line["deploy"], "finished")
        return delivery, line["deploy"]

    async def stands(self, id_: str, status: str) -> None:
        await until(lambda: self.store.hget(f"rq:job:{id_}", "status") == status.encode())

    def is_stripped(self, id_: str) -> bool:
        """Whether all or none of the details is kept; half is a failure."""
        fields = self.store.hgetall(f"rq:job:{id_}")
        assert fields, f"{id_} is gone"
        assert self.store.ttl(f"rq:job:{id_}") > 0
        has_data, is_stripped = b"data" in fields, b"stripped" in fields
        has_results = bool(self.store.exists(RESULTS_PREFIX + id_))
        assert has_data == has_results == (not is_stripped), fields
        if is_stripped:
            assert not self.store.exists(attempts_key(id_))
        return is_stripped

    def noted(self) -> dict[str, list[str]]:
        """Those of each kind that are noted as ended, the oldest first."""
        return {
            kind: [id_.decode() for id_ in self.store.zrange(history_key(QUEUE, kind), 0, -1)]
            for kind in get_args(Kind)
        }


@pytest.fixture
async def books(crew: Crew, relay: Relay, audited: io.BytesIO) -> Books:
    await relay.serve()
    return Books(crew, relay, audited)


@pytest.fixture
def strip(server: Redis) -> Callable[[], Any]:
    """Strip all that may be stripped."""
    return History(server, QUEUE, most=0).look


async def test_of_more_than_the_bound_the_oldest_are_stripped_and_known_as_duplicates(
    books: Books, relay: Relay, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_HISTORY", "2")
    # Two at once, which do the same.
    books.crew.start()
    books.crew.start()
    ended = [await books.deployed(f"n{number}") for number in range(5)]
    await until(lambda: all(len(ids) == 2 for ids in books.noted().values()))

    assert [[books.is_stripped(id_) for id_ in pair] for pair in ended] == [
        *([True, True] for _ in range(3)),
        *([False, False] for _ in range(2)),
    ]
    delivery, deploy = ended[0]
    body = {"before": sha_of("before n0"), "after": sha_of("n0")}
    known = (200, {"status": "duplicate", "delivery": delivery})
    assert await relay.push(delivery="n0", **body) == known
    # The same body under another id.
    assert await relay.push(delivery="other", **body) == known
    # Another webhook for the same push.
    assert (await relay.push(delivery="second", note="another body", **body))[0] == 202
    [line] = await books.told("deploy.duplicate")
    assert (line["delivery"], line["deploy"]) == ("github--second", deploy)
    assert len(target.calls) == 5
    assert books.is_stripped(delivery)
    assert books.store.hget(f"rq:job:{delivery}", "redeliveries") == b"2"


async def test_what_was_superseded_is_so_still_and_order_holds(
    books: Books, server: Redis, strip: Callable[[], Any], target: Target
) -> None:
    gate = asyncio.Event()

    async def slow(request: Any) -> Any:
        await gate.wait()
        return await answering(200)(request)

    target.answers = [slow]
    target.answer = answering(200)
    books.crew.start()
    await books.push("a", repo="acme/api", before="m")
    await target.called.wait()
    late = await books.push("b", repo="acme/api", before="a")
    await books.told("deploy.queued", sha=sha_of("b"))
    await books.push("c", repo="acme/api", before="b")
    await books.told("deploy.queued", sha=sha_of("c"))
    gate.set()
    [newest] = await books.told("deploy.succeeded", sha=sha_of("c"))
    [old] = await books.told("deploy.superseded", sha=sha_of("b"))
    await books.stands(newest["deploy"], "finished")

    assert await strip() == 6

    [record] = await Archive(server, QUEUE).read("deploy", [old["deploy"]])
    assert (record.status, record.superseded_by, record.stripped) == (
        "superseded",
        newest["deploy"],
        True,
    )
    [delivery] = await Archive(server, QUEUE).read("delivery", [late])
    assert (delivery.status, delivery.deploys) == ("superseded", [old["deploy"]])
    # A push that ends where a known one began comes late, and gives way to a stripped deploy.
    await books.push("m", repo="acme/api", before="x")
    [line] = await books.told("deploy.superseded", sha=sha_of("m"))
    assert line["by"] == newest["deploy"]
    assert len(target.calls) == 2


async def test_replay_of_a_stripped_one_is_refused(
    books: Books, server: Redis, strip: Callable[[], Any]
) -> None:
    books.crew.start()
    delivery, deploy = await books.deployed("a")
    assert await strip() == 2
    settings = load_settings()

    for forced in (False, True):
        [done] = await replay_deliveries(server, settings, [Wish(delivery, "ops", forced=forced)])
        assert (done.new, done.refusal) == ("", "stripped")
        [done] = await replay_deploys(server, settings, [Wish(deploy, "ops", forced=forced)])
        assert (done.new, done.refusal) == ("", "stripped")

    assert len(books.store.keys("rq:job:*")) == 2
    assert books.crew.queue.count == 0


async def test_what_waits_or_failed_is_stripped_only_once_it_has_ended_well(
    books: Books, server: Redis, strip: Callable[[], Any], target: Target
) -> None:
    target.answers = [answering(404)]
    books.crew.start()
    delivery = await books.push("a")
    [failed] = await books.told("deploy.failed")
    await books.stands(failed["deploy"], "failed")
    await books.stands(delivery, "finished")

    assert await strip() == 0
    assert not books.is_stripped(delivery)
    assert books.noted() == {"delivery": [], "deploy": []}
    # It may run again, and does when its sender delivers it again.
    await books.push("a")
    [done] = await books.told("deploy.succeeded", sha=sha_of("a"))
    await books.stands(done["deploy"], "finished")
    assert books.noted() == {"delivery": [delivery], "deploy": [done["deploy"]]}
    assert await strip() == 2
    assert books.is_stripped(delivery)
    assert not books.is_stripped(failed["deploy"])


async def test_delivery_whose_deploy_waits_is_not_stripped(
    books: Books, server: Redis, strip: Callable[[], Any], relay: Relay, target: Target
) -> None:
    gate = asyncio.Event()

    async def slow(request: Any) -> Any:
        await gate.wait()
        return await answering(200)(request)

    target.answer = slow
    books.crew.start()
    first = await books.push("a", repo="acme/api")
    await target.called.wait()
    # The same push by another webhook: it leads to the deploy of the first delivery.
    await relay.push(
        delivery="other",
        repo="acme/api",
        before=sha_of("before a"),
        after=sha_of("a"),
        note="another body",
    )
    await books.told("deploy.duplicate", delivery="github--other")
    for id_ in (first, "github--other"):
        await books.stands(id_, "finished")

    assert await strip() == 0
    # The first one is noted by its deploy's end, the other one has to be looked at again.
    assert books.noted() == {"delivery": ["github--other"], "deploy": []}
    gate.set()
    [done] = await books.told("deploy.succeeded")
    await books.stands(done["deploy"], "finished")
    assert await strip() == 3
    assert books.is_stripped(first)
    assert books.is_stripped("github--other")


async def test_stripped_delivery_that_may_run_again_gets_its_event_from_its_sender(
    books: Books, server: Redis, strip: Callable[[], Any], relay: Relay, target: Target
) -> None:
    books.crew.start()
    delivery, deploy = await books.deployed("a")
    # The deploy keeps its details, as if it had ended later.
    books.store.delete(history_key(QUEUE, "deploy"))
    assert await strip() == 1
    target.answers = [answering(404)]
    [again] = await replay_deploys(server, load_settings(), [Wish(deploy, "ops", forced=True)])
    await books.stands(again.new, "failed")

    # The same body, under another id.
    body = {"before": sha_of("before a"), "after": sha_of("a")}
    status, answer = await relay.push(delivery="other", **body)

    assert (status, answer["delivery"]) == (202, delivery)
    await until(lambda: len(books.lines("deploy.succeeded")) == 2)
    assert {line["delivery"] for line in books.lines("deploy.succeeded")} == {delivery}
    await books.stands(delivery, "finished")
    assert not books.is_stripped(delivery)
    assert not books.store.exists("rq:job:github--other")
    [record] = await Archive(server, QUEUE).read("delivery", [delivery])
    assert (record.status, record.stripped) == ("succeeded", False)


async def test_job_that_is_queued_between_the_look_and_the_stripping_keeps_its_event(
    books: Books, server: Redis
) -> None:
    worker = books.crew.start()
    delivery, _ = await books.deployed("a")
    worker.shut_down()
    await books.crew.ended(worker)
    books.store.delete(history_key(QUEUE, "deploy"))
    history = History(server, QUEUE, most=0)
    script: Any = history._strip

    async def late(**given: Any) -> Any:
        books.crew.queue.enqueue_job(Job.fetch(delivery, books.store))
        return await script(**given)

    history._strip = late  # type: ignore[assignment]
    assert await history.look() == 0

    assert books.store.hget(f"rq:job:{delivery}", "status") == b"queued"
    books.crew.start()
    # Our worker can read it and run it.
    await books.told("deploy.queued", count=2, delivery=delivery)
    await books.stands(delivery, "finished")
    assert books.noted()["delivery"] == [delivery]


async def test_of_two_that_look_at_once_one_strips_and_none_too_much(
    books: Books, server: Redis
) -> None:
    books.crew.start()
    ended = [await books.deployed(f"n{number}") for number in range(4)]
    first, second = (History(server, QUEUE, most=3) for _ in range(2))
    step = first._step
    counts: list[int] = []

    async def late(kind: Kind, count: int) -> int:
        # The other one comes between the count and the look at the oldest.
        if not counts:
            counts.append(await second.look())
        return await step(kind, count)

    first._step = late  # type: ignore[method-assign]
    counts.append(await first.look())

    assert counts == [2, 0]
    assert [[books.is_stripped(id_) for id_ in pair] for pair in ended] == [
        [True, True],
        *([False, False] for _ in range(3)),
    ]


async def test_many_that_look_at_once_strip_each_only_once(
    books: Books, server: Redis, strip: Callable[[], Any]
) -> None:
    books.crew.start()
    for number in range(4):
        await books.deployed(f"n{number}")

    counts = await asyncio.gather(*(strip() for _ in range(5)))

    assert sum(counts) == 8
    assert books.noted() == {"delivery": [], "deploy": []}


async def test_large_event_is_freed_even_by_a_redis_without_memory(
    crew: Crew, server: Redis, strip: Callable[[], Any]
) -> None:
    store: Any = crew.store
    noise = "".join(sha_of(f"{number}") for number in range(20_000))
    crew.start()
    event = Push(
        *("acme/web", "refs/heads/main", sha_of("before"), sha_of("a")), author=Person(name=noise)
    )
    delivery = Delivery("github--large", "github", 0, event)
    job = Job.create(
        DELIVERY_JOB,
        (msgspec.json.encode(delivery).decode(),),
        id=delivery.id,
        connection=crew.store,
        description="delivery: push acme/web@2f1b",
    )
    crew.queue.enqueue_job(job)
    await until(lambda: all(store.zcard(history_key(QUEUE, kind)) for kind in get_args(Kind)))
    [deploy] = store.hget(job.key, "deploys").decode().split()
    await until(lambda: store.hget(f"rq:job:{deploy}", "status") == b"finished")
    keys = [job.key, f"rq:job:{deploy}"]
    before = [store.memory_usage(key, samples=0) for key in keys]
    assert min(before) > 350_000

    store.config_set("maxmemory", "1")
    try:
        assert await strip() == 2
    finally:
        store.config_set("maxmemory", "0")

    # A hash that had a large field stays in its large form unless it is made anew.
    assert [store.object("encoding", key) for key in keys] == [b"listpack", b"listpack"]
    assert max(store.memory_usage(key, samples=0) for key in keys) < 1_500


async def test_what_is_stripped_and_noted_again_stays_as_it_is(
    books: Books, server: Redis, strip: Callable[[], Any]
) -> None:
    books.crew.start()
    delivery, deploy = await books.deployed("a")
    assert await strip() == 2
    before = [books.store.hgetall(f"rq:job:{id_}") for id_ in (delivery, deploy)]
    # As by the end of a replay of its deploy.
    books.store.zadd(history_key(QUEUE, "delivery"), {delivery: 1})
    books.store.zadd(history_key(QUEUE, "deploy"), {deploy: 1})

    assert await strip() == 0

    assert [books.store.hgetall(f"rq:job:{id_}") for id_ in (delivery, deploy)] == before
    assert books.noted() == {"delivery": [], "deploy": []}


async def test_more_than_a_step_is_stripped_in_one_look(
    store: redis.Redis, server: Redis, strip: Callable[[], Any]
) -> None:
    count = 2 * STEP + 1
    for number in range(count):
        job: Any = {"status": "finished", "data": "?", "description": "deploy: t r@s"}
        store.hset(f"rq:job:t--{number}", mapping=job)
        store.zadd(history_key(QUEUE, "deploy"), {f"t--{number}": number})

    assert await strip() == count
    # What cannot be read is stripped too, and nothing is known of it but that.
    [record] = await Archive(server, QUEUE).read("deploy", ["t--0"])
    assert (record.status, record.repo, record.stripped) == ("succeeded", "", True)


@pytest.mark.parametrize("status", [one.value for one in JobStatus])
async def test_only_what_ended_well_is_stripped(
    store: redis.Redis, server: Redis, strip: Callable[[], Any], status: str
) -> None:
    job: Any = {"status": status, "data": "?", "description": "deploy: t r@s"}
    key = history_key(QUEUE, "deploy")
    store.hset("rq:job:t--1", mapping=job)
    # Somebody may want this one to be made after all.
    store.hset("rq:job:t--2", mapping={**job, "cancelled_by": "ops"})
    store.zadd(key, {"t--1": 1, "t--2": 2})

    assert await strip() == (status == "finished")

    assert store.hexists("rq:job:t--1", "data") == (status != "finished")
    assert store.hexists("rq:job:t--2", "data")
    # What has not ended is looked at again, and is not the oldest any more.
    assert store.zcard(key) == (2 if status in ACTIVE_IN_RQ else 0)
    assert store.zcount(key, "-inf", 2) == 0


async def test_what_is_gone_is_forgotten(
    store: redis.Redis, server: Redis, strip: Callable[[], Any]
) -> None:
    store.zadd(history_key(QUEUE, "delivery"), {"github--gone": 1})

    assert await strip() == 0

    assert not store.exists(history_key(QUEUE, "delivery"), "rq:job:github--gone")


async def test_what_is_stripped_in_the_last_moment_of_its_life_ends_all_the_same(
    store: redis.Redis, strip: Callable[[], Any]
) -> None:
    job: Any = {"status": "finished", "data": "?", "description": "deploy: t r@s"}
    # Whose last millisecond it is, only chance tells; of so many some are met in it.
    for start in range(0, 3_000, STEP):
        ids = [f"t--{number}" for number in range(start, start + STEP)]
        with store.pipeline(transaction=False) as pipe:
            pipe.zadd(history_key(QUEUE, "deploy"), dict.fromkeys(ids, 1))
            for number, id_ in enumerate(ids):
                pipe.hset(f"rq:job:{id_}", mapping=job)
                pipe.pexpire(f"rq:job:{id_}", 1 + number // 5)
            pipe.execute()
        await strip()

    await until(lambda: not [key for key in store.scan_iter("rq:job:*") if store.ttl(key) != -1])
    assert list(store.scan_iter("rq:job:*")) == []
