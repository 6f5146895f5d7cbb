"""A console of the test's own on a real socket, with real Redis behind it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import CookieJar, web

from config.loading import load
from config.settings import Settings
from relay.archive import Archive
from relay.commands.console import powers
from relay.console.app import assemble
from relay.console.context import Context, planned
from relay.console.sessions import Sessions
from relay.store import connect_async
from relay.tokens import create
from tests.console.desk import Desk
from tests.harness import RELAY_YAML


@pytest.fixture
def settings(server_socket: Path, tmp_path: Path) -> Settings:
    path = tmp_path / "relay.yaml"
    path.write_text(RELAY_YAML, encoding="utf-8")
    return Settings(
        config=path,
        redis_url=f"unix://{server_socket}",  # type: ignore[arg-type]
        trusted_proxies=["127.0.0.0/8"],  # type: ignore[arg-type]
        store_timeout=2,
    )


@pytest.fixture
async def desk(store: redis.Redis, settings: Settings, audited: io.BytesIO) -> AsyncIterator[Desk]:
    connection = connect_async(settings.redis_address(), timeout=settings.store_timeout)
    plan = planned(load(settings.config, secrets_of=()))
    context = Context(
        settings=settings,
        redis=connection,
        archive=Archive(connection, settings.queue),
        powers=powers(settings),
        sessions=Sessions(connection),
        plan=lambda: plan,
    )
    runner = web.AppRunner(assemble(context), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    texts: dict[Any, str] = {
        role: create(store, f"a-{role}", role).text for role in ("viewer", "operator")
    }
    desk = Desk(f"http://{host}:{port}", texts, store, audited)
    async with desk.session(CookieJar(unsafe=True)) as http:
        desk.http = http
        yield desk
    await runner.cleanup()
    await connection.aclose()
