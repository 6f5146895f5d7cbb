"""Which deploys are the same deploy, asked of the server that decides it."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from config.model import Target
from relay.events.event import NO_COMMIT, Event, PullRequest, Push
from relay.identity import deploy_identity
from relay.store import connect_async
from workers.deploys import MAX_MOVES, Deploy, Wanted, latest_key, queue_deploys

A, B, C, D = "a" * 40, "b" * 40, "c" * 40, "d" * 40


def push(before: str, after: str) -> Push:
    deleted = after == NO_COMMIT
    return Push("acme/web", "refs/heads/main", before, after, deleted=deleted)


def pull(action: Any, sha: str = A, *, at: str = "") -> PullRequest:
    return PullRequest("acme/web", 7, action, sha, "topic", "acme/web", "main", updated_at=at)


@pytest.fixture
async def server(store: redis.Redis, server_socket: Path) -> AsyncIterator[Redis]:
    connection = connect_async(f"unix://{server_socket}", timeout=2)
    yield connection
    await connection.aclose()


async def verdicts(server: Redis, *events: Event, status: str = "finished") -> str:
    """One letter an event, which comes when those before it have ended: queued or duplicate."""
    target = Target.model_validate({"preset": "http", "url": "http://localhost/"})
    told = ""
    for number, event in enumerate(events):
        wanted = Wanted(f"d{number}", [(Deploy(f"d{number}", "s", "r", "t", event), target)])
        [[queued]] = await queue_deploys(server, [wanted], queue="q", failure_ttl=60)
        told += "d" if queued.duplicate else "q"
        if not queued.duplicate:
            await server.hset(f"rq:job:{queued.id}", "status", status)
    return told


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        # A second webhook for the same push, at once and late.
        ([push(A, B), push(A, B)], "qd"),
        ([push(A, B), push(B, C), push(A, B)], "qqd"),
        # A branch that is moved back, and on again by what looks like the first push.
        ([push(A, B), push(B, A), push(A, B), push(B, A)], "qqqq"),
        ([push(A, B), push(B, A), push(A, B), push(A, B)], "qqqd"),
        # A branch that comes and goes; the last two do not say which commit is gone, as in Gitea.
        ([push(NO_COMMIT, A), push(A, NO_COMMIT)] * 2, "qqqq"),
        ([push(NO_COMMIT, A), push(NO_COMMIT, NO_COMMIT)] * 2, "qqqq"),
        ([push(NO_COMMIT, NO_COMMIT)] * 2, "qd"),
        # One preview for opening and updating, another matter is closing, and closing again.
        ([pull("opened", at="1"), pull("synchronize", at="2")], "qd"),
        (
            [
                pull("opened", at="1"),
                pull("closed", at="2"),
                pull("reopened", at="3"),
                pull("closed", at="4"),
                pull("reopened", at="5"),
            ],
            "qqqqq",
        ),
        ([pull("closed"), pull("reopened"), pull("closed")], "qqq"),
        # Back to a commit, and a late second webhook for the first one.
        (
            [
                pull("synchronize", A, at="1"),
                pull("synchronize", B, at="2"),
                pull("synchronize", A, at="3"),
                pull("synchronize", B, at="4"),
                pull("synchronize", A, at="3"),
            ],
            "qqqqd",
        ),
    ],
)
async def test_what_is_a_duplicate(server: Redis, events: list[Event], expected: str) -> None:
    assert await verdicts(server, *events) == expected


async def newest(server: Redis, *events: Event, **keys: Any) -> str:
    """One letter an event: n if its deploy is the newest of its subject once it is queued, o if it
    is an older one that came late, d for a duplicate."""
    keys = {"preset": "http", "url": "http://localhost/", "supersede": True} | keys
    target, told = Target.model_validate(keys), ""
    for number, event in enumerate(events):
        deploy = Deploy(f"d{number}", "s", "r", "t", event)
        wanted = Wanted(deploy.delivery, [(deploy, target)])
        [[queued]] = await queue_deploys(server, [wanted], queue="q", failure_ttl=60)
        latest = await server.hget(latest_key(deploy), "job")
        told += "d" if queued.duplicate else "n" if latest == queued.id.encode() else "o"
        await server.hset(f"rq:job:{queued.id}", "status", "finished")
    return told


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([push(A, B), push(B, C)], "nn"),
        # Late by one, by two in a row, and the second webhook for it.
        ([push(B, C), push(A, B)], "no"),
        ([push(C, D), push(B, C), push(A, B), push(A, B)], "nood"),
        # Moved back, and on again.
        ([push(A, B), push(B, C), push(C, B)], "nnn"),
        ([push(A, B), push(B, A), push(A, B)], "nnn"),
        # Moved back to what was deployed, while the webhook for C to D got lost: a spare deploy is
        # better than a missed one.
        ([push(A, B), push(B, C), push(D, B)], "nnn"),
        # The creation came late. That a branch went away is no end where a move can begin.
        ([push(A, B), push(NO_COMMIT, A)], "nn"),
        ([push(NO_COMMIT, A), push(A, B), push(NO_COMMIT, NO_COMMIT)], "nnn"),
        # Of pull requests the time decides, whatever way it is written; without one the order.
        (
            [
                pull("synchronize", B, at="2026-01-31T12:00:00Z"),
                pull("opened", A, at="2026-01-31T12:59:59+01:00"),
                pull("synchronize", C, at="2026-01-31 12:00:01 UTC"),
                pull("synchronize", D),
                pull("closed", D, at="2026-01-31 12:00:00 +0000"),
            ],
            "nonnn",
        ),
    ],
)
async def test_what_comes_late(server: Redis, events: list[Event], expected: str) -> None:
    assert await newest(server, *events) == expected


async def test_without_supersede_the_last_to_come_is_the_newest(server: Redis) -> None:
    assert await newest(server, push(B, C), push(A, B), supersede=False) == "nn"
    assert await server.keys("*:moves") == []


async def test_moves_that_are_remembered_are_bounded(server: Redis) -> None:
    commits = [f"{number:040x}" for number in range(1, MAX_MOVES + 4)]
    moves = [push(*pair) for pair in itertools.pairwise(commits)]
    assert await newest(server, *moves) == "n" * len(moves)

    [key] = await server.keys("*:moves")
    assert await server.zcard(key) == MAX_MOVES
    assert 0 < await server.ttl(key) <= 259_200
    assert await newest(server, push(D, commits[0])) == "n", "its move is forgotten"


@pytest.mark.parametrize(
    ("older", "new_burst"),
    [
        ({"status": "scheduled"}, False),
        ({"status": "rate_limited"}, False),
        ({"status": "started", "number_of_retries": 0}, False),
        ({"status": "started", "calling": 1}, True),
        ({"status": "scheduled", "number_of_retries": 1}, True),
        ({"status": "finished"}, True),
    ],
)
async def test_a_burst_lasts_until_one_of_it_is_called(
    server: Redis, store: redis.Redis, older: dict[str, Any], new_burst: bool
) -> None:
    await newest(server, push(A, B), debounce="10s")
    [latest] = store.keys("relay:latest:*[^s]")
    began = store.hget(latest, "burst")
    assert store.hget(latest, "at") == began
    job = f"rq:job:t--{deploy_identity('t', push(A, B))}"
    for field, value in older.items():
        store.hset(job, field, value)

    await newest(server, push(B, C), debounce="10s")

    assert (store.hget(latest, "burst") != began) is new_burst
    assert store.hget(latest, "at") != began


async def test_what_waits_for_its_time_and_has_become_old_is_woken(
    server: Redis, store: redis.Redis
) -> None:
    await newest(server, push(A, B))
    old = f"t--{deploy_identity('t', push(A, B))}"
    store.zadd("rq:scheduled:q", {old: 2e10, "another": 2e10})

    await newest(server, push(B, C))

    assert store.zscore("rq:scheduled:q", old) == pytest.approx(time.time(), abs=10)
    assert store.zscore("rq:scheduled:q", "another") == 2e10


async def test_a_replay_is_the_newest_and_moves_nothing(server: Redis, store: redis.Redis) -> None:
    assert await newest(server, push(A, B), push(B, C), debounce="10s") == "nn"
    latest = latest_key(Deploy("d0", "s", "r", "t", push(A, B)))
    moves = store.zrange(f"{latest}:moves", 0, -1)
    waiting = f"t--{deploy_identity('t', push(B, C))}"
    store.zadd("rq:scheduled:q", {waiting: 2e10})
    store.hset("rq:job:d0", mapping={"receipt": "again", "replay_of": "d"})

    assert await newest(server, push(A, B), debounce="10s") == "n"

    assert store.hmget(latest, "after", "at", "burst") == [C.encode(), None, None]
    assert store.zrange(f"{latest}:moves", 0, -1) == moves
    assert store.zscore("rq:scheduled:q", waiting) == pytest.approx(time.time(), abs=10)
    store.hdel("rq:job:d0", "replay_of")
    store.hset(f"rq:job:t--{deploy_identity('t', push(A, B))}-2", "status", "scheduled")
    await newest(server, push(C, D), debounce="10s")
    burst, at = store.hmget(latest, "burst", "at")
    assert burst == at
    assert at is not None


async def test_a_replay_of_an_older_change_leaves_when_the_newest_was(
    server: Redis, store: redis.Redis
) -> None:
    times = [f"2026-01-31T12:00:0{second}Z" for second in range(3)]
    first, second, third = (
        pull("synchronize", sha, at=at) for sha, at in zip((A, B, C), times, strict=True)
    )
    assert await newest(server, first, third) == "nn"
    store.hset("rq:job:d0", mapping={"receipt": "again", "replay_of": "d"})
    assert await newest(server, first) == "n"
    store.hdel("rq:job:d0", "replay_of")

    assert await newest(server, second) == "o"


async def test_a_deploy_that_failed_may_be_made_again(server: Redis) -> None:
    assert await verdicts(server, push(A, B), push(A, B), status="failed") == "qq"
