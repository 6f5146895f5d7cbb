"""Which deploys are the same deploy, asked of the server that decides it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from config.model import Target
from relay.events import NO_COMMIT, Event, PullRequest, Push
from relay.store import connect_async
from workers.deploys import Deploy, Wanted, queue_deploys

A, B, C = "a" * 40, "b" * 40, "c" * 40


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


async def test_a_deploy_that_failed_may_be_made_again(server: Redis) -> None:
    assert await verdicts(server, push(A, B), push(A, B), status="failed") == "qq"
