"""Fixtures: a crew of workers, and a desk where deploys are ordered."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from rq import Queue

from tests.harness import Relay
from tests.workers import jobs
from tests.workers.crew import Crew
from tests.workers.desk import YAML, Desk
from workers.runtime import project


@pytest.fixture
async def crew(
    relay: Relay, store: redis.Redis, audited: io.BytesIO, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Crew]:
    for name, value in relay.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RELAY_CONFIG", str(relay.folder / "relay.yaml"))
    project.cache_clear()
    jobs.clear()
    crew = Crew(relay.environ["RELAY_REDIS_URL"], store, Queue("deploy-relay", connection=store))
    yield crew
    for worker, task in crew.workers:
        worker.shut_down()
        worker.shut_down()
        await task
        worker.connection.close()
    project.cache_clear()


@pytest.fixture
def keys() -> str:
    return ""


@pytest.fixture
def desk(crew: Crew, audited: io.BytesIO, relay: Any, keys: str) -> Desk:
    relay.write(YAML.replace("KEYS\n", keys))
    return Desk(crew, audited)
