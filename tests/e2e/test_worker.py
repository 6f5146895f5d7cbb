"""The worker as a process: signals, RQ's own tools beside it, targets that hang, a dying Redis."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis
from aiohttp import web
from rq import Worker

from tests.harness import (
    PATIENCE,
    PRODUCTION_PATH,
    RELAY_YAML,
    Relay,
    Target,
    sha_of,
    start_server,
    until,
)


class Gate:
    """A target's answer that waits until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path == PRODUCTION_PATH:
            return web.json_response({"success": True})
        await self.open.wait()
        return web.Response(status=202)


@pytest.fixture
def gate(target: Target) -> Gate:
    """The target ``api`` answers once the gate is open, ``production`` at once."""
    target.answer = gate = Gate()
    return gate


async def called(target: Target, count: int) -> None:
    await until(lambda: len(target.calls) == count)


async def rq(relay: Relay, *arguments: str) -> str:
    command = await relay.start(
        sys.executable, "-m", "rq.cli", *arguments, "--url", relay.environ["RELAY_REDIS_URL"]
    )
    async with asyncio.timeout(PATIENCE):
        assert await command.process.wait() == 0
    await command.stop()
    return "".join(command.output)


def commits(target: Target) -> list[str]:
    return [body.decode()[8:48] for *_, path, _, body in target.calls if path == "/api"]


async def test_rq_info_shows_the_queue_and_the_worker(
    relay: Relay, target: Target, gate: Gate, store: redis.Redis
) -> None:
    await relay.serve()
    await relay.work()
    await relay.push(repo="acme/api")
    await called(target, 1)
    await until(lambda: Worker.all(store)[0].get_state() == "busy")

    info = await rq(relay, "info", "--raw")

    assert "queue deploy-relay 0" in info
    assert " busy deploy-relay." in info
    gate.open.set()


async def test_plain_rq_worker_fails_the_jobs_and_the_sweep_makes_them_again(
    relay: Relay, target: Target, store: redis.Redis
) -> None:
    receiver = await relay.serve()
    await relay.push()
    await until(lambda: store.llen("rq:queue:deploy-relay"))
    await rq(relay, "worker", "--burst", "deploy-relay")
    assert target.calls == []
    await until(lambda: store.llen("rq:queue:deploy-relay"))
    await rq(relay, "worker", "--burst", "deploy-relay")
    [line] = await receiver.wait_for("queue.job_failed")
    assert line["reason"].endswith("needs -S json")

    worker = await relay.work()
    await worker.wait_for("deploy.succeeded")
    assert len(target.calls) == 1


async def test_sigterm_lets_a_call_end(
    relay: Relay, target: Target, gate: Gate, store: redis.Redis
) -> None:
    await relay.serve()
    worker = await relay.work()
    await relay.push(repo="acme/api")
    await called(target, 1)

    worker.process.terminate()
    await until(lambda: Worker.all(store)[0].shutdown_requested_date)
    gate.open.set()

    assert await worker.process.wait() == 0
    await worker.stop()
    assert [entry["event"] for entry in worker.audit[-2:]] == ["deploy.succeeded", "worker.stopped"]


async def test_call_that_outlasts_the_grace_is_uncertain(
    relay: Relay, target: Target, gate: Gate, store: redis.Redis
) -> None:
    relay.environ = {**relay.environ, "RELAY_SHUTDOWN_GRACE": "100ms"}
    relay.write(RELAY_YAML.replace("timeout: 30s", "timeout: 30s\n    on_uncertain: hold"))
    await relay.serve()
    worker = await relay.work()
    await relay.push(repo="acme/api")
    await called(target, 1)

    assert await worker.stop() == 0

    [failed] = worker.find("deploy.failed")
    assert failed["reason"].startswith("attempt 1 was cut off before its answer came")
    assert Worker.all(store) == []
    gate.open.set()
    await relay.work()
    assert len(target.calls) == 1


async def test_hanging_target_holds_up_nobody_else(
    relay: Relay, target: Target, gate: Gate, store: redis.Redis
) -> None:
    relay.environ = {**relay.environ, "RELAY_JOBS_IN_FLIGHT": "3"}
    relay.write(
        RELAY_YAML.replace("concurrency: 1", "concurrency: 2").replace("supersede: true", "")
    )
    await relay.serve()
    worker = await relay.work()
    for number in range(8):
        ref = f"refs/heads/{number}"
        await relay.push(repo="acme/api", after=sha_of(str(number)), ref=ref)
    await worker.wait_for("deploy.queued", target="api", count=8)
    await called(target, 2)

    await relay.push()

    await worker.wait_for("deploy.succeeded", target="production")
    assert len(commits(target)) == 2
    assert store.llen("rq:queue:deploy-relay") == 0
    gate.open.set()
    await worker.wait_for("deploy.succeeded", target="api", count=8)


async def test_concurrency_of_one_keeps_the_order_of_arrival(
    relay: Relay, target: Target, gate: Gate
) -> None:
    relay.write(RELAY_YAML.replace("supersede: true", "supersede: false"))
    await relay.serve()
    pushed = [sha_of(str(number)) for number in range(12)]
    for before, commit in zip([sha_of("first"), *pushed], pushed, strict=False):
        await relay.push(repo="acme/api", before=before, after=commit)
    worker = await relay.work()
    await worker.wait_for("deploy.queued", count=12)

    gate.open.set()

    await worker.wait_for("deploy.succeeded", count=12)
    assert commits(target) == pushed


async def test_redis_that_dies_and_comes_back_costs_nothing(
    relay: Relay, target: Target, gate: Gate
) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        server, socket = await served(Path(name))
        relay.environ = {**relay.environ, "RELAY_REDIS_URL": f"unix://{socket}"}
        await relay.serve()
        worker = await relay.work()
        await relay.push(repo="acme/api")
        await called(target, 1)

        server.kill()
        server.wait()
        gate.open.set()
        await worker.wait_for("deploy.succeeded", target="api")
        await relay.push(repo="acme/api", before=sha_of("a"), after=sha_of("b"))
        await worker.wait_for("deploy.succeeded", target="api", count=2)
        server, _ = await served(Path(name))
        await relay.push()
        await worker.wait_for("deploy.succeeded", target="production")

        assert await worker.stop() == 0
        assert len(target.calls) == 3
        server.terminate()
        server.wait()


async def test_worker_ends_though_redis_is_gone(relay: Relay, target: Target, gate: Gate) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        server, socket = await served(Path(name))
        relay.environ = {**relay.environ, "RELAY_REDIS_URL": f"unix://{socket}"}
        await relay.serve()
        worker = await relay.work()
        await relay.push(repo="acme/api")
        await called(target, 1)
        server.kill()
        server.wait()
        gate.open.set()

        assert await worker.stop() == 0

        assert worker.find("worker.stopped")
        assert worker.find("deploy.succeeded")


async def served(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A server with what is in the folder, once it answers."""
    server, socket = start_server(folder)

    def answers() -> bool:
        try:
            with redis.Redis(unix_socket_path=str(socket)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    await until(answers)
    return server, socket
