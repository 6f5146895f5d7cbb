"""A worker that starts when Redis is not there, still loads its file, or refuses it for good."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from relay.embedded import find_server
from tests.harness import COMMAND, PATIENCE, Process, Relay, Target, sha_of, start_server, until

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Near the root: pytest's own folders are too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        yield Path(name)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts servers of the test's own, by default as the embedded one is started."""
    servers = []

    def run(*options: str) -> subprocess.Popen[bytes]:
        if not options:
            server, _ = start_server(folder)
        else:
            here = ("--dir", str(folder), "--unixsocket", str(folder / "redis.sock"))
            server = subprocess.Popen(
                [find_server(), "--port", "0", *here, *options], stdout=subprocess.DEVNULL
            )
        servers.append(server)
        return server

    yield run
    for server in servers:
        server.kill()
        server.wait(PATIENCE)


async def starting(relay: Relay, url: str) -> Process:
    relay.environ = {**relay.environ, "RELAY_REDIS_URL": url}
    return await relay.start(*COMMAND, "worker")


async def test_worker_begins_without_redis_and_finds_it_later(
    relay: Relay, target: Target, folder: Path, start: Start
) -> None:
    worker = await starting(relay, f"unix://{folder}/redis.sock")
    [waiting] = await worker.wait_for("worker.waiting")
    assert waiting["reason"] == "Redis does not answer (ConnectionError)"
    assert waiting["level"] == "warning"
    await worker.wait_for("worker.started", worker=waiting["worker"])
    await relay.serve()
    assert (await relay.push())[0] == 202
    await worker.wait_for("deploy.succeeded", target="production")

    start()
    await until(lambda: registered(folder))
    assert (await relay.push(before=sha_of("a"), after=sha_of("b")))[0] == 202
    await worker.wait_for("deploy.succeeded", target="production", count=2)

    assert len(target.calls) == 2
    assert await worker.stop() == 0
    assert len(worker.find("worker.waiting")) == 1


def registered(folder: Path) -> bool:
    """Whether RQ knows a worker."""
    try:
        with redis.Redis(unix_socket_path=str(folder / "redis.sock")) as client:
            return bool(client.scard("rq:workers") == 1)
    except redis.RedisError:
        return False


async def test_worker_that_waits_for_the_server_of_up_says_where_it_looks(
    relay: Relay, folder: Path
) -> None:
    without = {name: text for name, text in relay.environ.items() if name != "RELAY_REDIS_URL"}
    relay.environ = {**without, "RELAY_DATA_DIR": str(folder)}
    worker = await relay.start(*COMMAND, "worker")

    [waiting] = await worker.wait_for("worker.waiting")

    assert waiting["reason"].startswith("Redis does not answer (ConnectionError); RELAY_REDIS_URL ")
    assert f" RELAY_DATA_DIR, {folder}: " in waiting["reason"]
    assert await worker.stop() == 0


async def test_worker_is_known_once_redis_has_loaded(
    relay: Relay, folder: Path, start: Start
) -> None:
    url = f"unix://{folder}/redis.sock"
    first = start("--save", "")
    with redis.Redis.from_url(url) as client:
        await until(lambda: (folder / "redis.sock").exists())
        for number in range(1_000):
            client.set(str(number), os.urandom(2048))
        client.save()
    first.terminate()
    first.wait(PATIENCE)
    # Twenty keys a second, and clients get an answer after each.
    slowly = ("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024")
    start("--save", "", *slowly)

    worker = await starting(relay, url)
    [waiting] = await worker.wait_for("worker.waiting")
    assert waiting["reason"] == "Redis does not answer (BusyLoadingError)"
    with redis.Redis.from_url(url) as client:
        client.config_set("key-load-delay", "0")
    await until(lambda: registered(folder))

    assert await worker.stop() == 0


async def test_sigterm_ends_a_worker_without_redis(relay: Relay, folder: Path) -> None:
    worker = await starting(relay, f"unix://{folder}/redis.sock")
    [waiting] = await worker.wait_for("worker.waiting")

    assert await worker.stop() == 0

    assert worker.find("worker.stopped", worker=waiting["worker"])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "unix://nobody:wrong-password-9@{socket}",
            "Redis refuses the user or the password in RELAY_REDIS_URL\n",
        ),
        ("redis://:wrong-password-9@{target}", "what answers at RELAY_REDIS_URL is no Redis\n"),
        ("rediss://:wrong-password-9@{target}", "TLS with Redis fails (SSLError)\n"),
        ("unix://{socket}?db=99", "Redis refuses what a worker asks (ResponseError)\n"),
    ],
)
async def test_worker_does_not_wait_for_what_will_not_change(
    url: str, words: str, relay: Relay, target: Target, server_socket: Path
) -> None:
    place = target.url.removeprefix("http://")
    worker = await starting(relay, url.format(socket=server_socket, target=place))

    async with asyncio.timeout(PATIENCE):
        assert await worker.process.wait() == 1
    await worker.stop()

    assert words in worker.output
    assert not worker.audit
    assert "wrong-password-9" not in "".join(worker.output)
