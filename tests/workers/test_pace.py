"""Ends of deploys are counted by the minute, each once and with its outcome."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import redis
from aiohttp import web

from tests.harness import Target, until
from tests.workers.desk import Desk, answering


def counted(store: redis.Redis) -> Counter[str]:
    total: Counter[str] = Counter()
    for key in store.keys("relay:pace:*"):
        fields: Any = store.hgetall(key)
        total.update({name.decode(): int(n) for name, n in fields.items()})
    return total


async def cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize("keys", ["    concurrency: 1\n"])
async def test_a_deploy_is_counted_when_it_has_ended(
    desk: Desk, store: redis.Redis, target: Target
) -> None:
    # The first is retried and then succeeds, the second is refused, of the third nobody knows.
    target.answers = [answering(500), answering(200), answering(404), cut_off]
    desk.crew.start()

    for word, event in (
        ("a", "deploy.succeeded"),
        ("b", "deploy.failed"),
        ("c", "deploy.uncertain"),
    ):
        await desk.told(event, deploy=await desk.push(word))

    await until(lambda: counted(store).total() == 3)
    assert counted(store) == {"succeeded": 1, "failed": 1, "held": 1}


@pytest.mark.parametrize("keys", ["    supersede: true\n"])
async def test_what_was_never_called_is_not_counted(
    desk: Desk, store: redis.Redis, target: Target
) -> None:
    store.hset("relay:target:api", "paused", "1")
    desk.crew.start()
    old = await desk.push("a")
    await desk.told("deploy.waiting", deploy=old)

    await desk.push("b", before="a")

    await desk.told("deploy.superseded", deploy=old)
    await until(lambda: store.hget(f"rq:job:{old}", "status") == b"finished")
    assert counted(store) == {}
