"""Fixtures: a crew of workers, and a desk where deploys are ordered."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from relay.ledger.ledger import prepare
from tests.harness import Relay
from tests.workers.crew import Crew, open_ledger, open_wakeups
from tests.workers.desk import YAML, Desk
from workers.runtime import project


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    prepare(folder)
    return folder


@pytest.fixture
async def crew(
    relay: Relay,
    store: redis.Redis,
    audited: io.BytesIO,
    monkeypatch: pytest.MonkeyPatch,
    data_dir: Path,
) -> AsyncIterator[Crew]:
    for name, value in relay.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RELAY_CONFIG", str(relay.folder / "relay.yaml"))
    monkeypatch.setenv("RELAY_DATA_DIR", str(data_dir))
    project.cache_clear()
    queue = Queue("deploy-relay", connection=store, serializer=JSONSerializer)
    crew = Crew(relay.environ["RELAY_REDIS_URL"], data_dir, store, queue)
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
async def desk(crew: Crew, audited: io.BytesIO, relay: Any, keys: str) -> AsyncIterator[Desk]:
    relay.write(YAML.replace("KEYS\n", keys))
    async with (
        open_ledger(crew.folder) as ledger,
        open_wakeups(crew.url, crew.queue.name) as wakeups,
    ):
        yield Desk(crew, ledger, wakeups, audited)
