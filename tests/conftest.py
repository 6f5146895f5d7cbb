"""Fixtures: one real server a session, emptied for each test; a project; a deploy target."""

from __future__ import annotations

import io
import socket as sockets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from aiohttp import web
from hypothesis import HealthCheck, settings

from relay import audit
from tests.harness import (
    API_TOKEN,
    GITHUB_SECRET,
    GITLAB_SECRET,
    PATIENCE,
    PREVIEW_PATH,
    PRODUCTION_PATH,
    RELAY_YAML,
    Relay,
    Target,
    start_server,
)

# How long an example takes says more of the machine than of the code.
settings.register_profile("relay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relay")


@pytest.fixture(scope="session")
def server_socket() -> Iterator[Path]:
    # A folder of its own near the root: pytest's are too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        process, socket = start_server(Path(folder))
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, "the server did not start"
            try:
                with sockets.socket(sockets.AF_UNIX) as probe:
                    probe.connect(str(socket))
                break
            except OSError:
                assert time.monotonic() < deadline, "the server is silent"
        yield socket
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def store(server_socket: Path) -> Iterator[redis.Redis]:
    """A client of an empty server."""
    with redis.Redis(unix_socket_path=str(server_socket)) as client:
        client.flushall()
        yield client


@pytest.fixture
def audited() -> Iterator[io.BytesIO]:
    """The audit of this process, as it would stand on standard output."""
    stream = io.BytesIO()
    audit.configure(stream=stream)
    yield stream
    audit.configure()


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    platform = Target()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", platform.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    platform.url = f"http://{host}:{port}"
    yield platform
    await runner.cleanup()


@pytest.fixture
async def relay(
    store: redis.Redis, server_socket: Path, target: Target, tmp_path: Path
) -> AsyncIterator[Relay]:
    project = Relay(
        tmp_path,
        {
            "RELAY_REDIS_URL": f"unix://{server_socket}",
            "RELAY_PORT": "0",
            "RELAY_CONSOLE_PORT": "0",
            "RELAY_LOG_LEVEL": "debug",
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "TEST_GITHUB_SECRET": GITHUB_SECRET,
            "TEST_GITLAB_SECRET": GITLAB_SECRET,
            "TEST_PRODUCTION_HOOK": target.url + PRODUCTION_PATH,
            "TEST_PREVIEW_HOOK": target.url + PREVIEW_PATH,
            "TEST_API_URL": f"{target.url}/api",
            "TEST_API_TOKEN": API_TOKEN,
        },
    )
    project.write(RELAY_YAML)
    yield project
    for process in project.processes:
        await process.stop()
