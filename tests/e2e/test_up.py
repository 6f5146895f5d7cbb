"""`deploy-relay up` and `demo`: the embedded server, clean stops, and a part that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from relay.embedded import NoEmbeddedServer, find_server, server_command
from tests.harness import COMMAND, SECRETS, Process, Relay, Target, children, until


@pytest.fixture
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        yield Path(folder)


@pytest.fixture
async def alone(relay: Relay, data: Path) -> AsyncIterator[Relay]:
    """The project without a server of its own, so that `up` starts one."""
    environ = {key: value for key, value in relay.environ.items() if key != "RELAY_REDIS_URL"}
    project = Relay(relay.folder, {**environ, "RELAY_DATA_DIR": str(data)})
    yield project
    for process in project.processes:
        await process.stop()


async def up(alone: Relay) -> Process:
    process = await alone.start(*COMMAND, "up")
    [started] = await process.wait_for("receiver.started")
    alone.url = started["url"].removesuffix("/hooks/")
    await process.wait_for("worker.started")
    await process.wait_for("console.started")
    return process


async def test_up_deploys_and_stops_cleanly(alone: Relay, target: Target) -> None:
    process = await up(alone)

    assert (await alone.push())[0] == 202
    await process.wait_for("deploy.succeeded")

    assert await process.stop() == 0
    assert [entry["event"] for entry in process.audit[-4:]] == [
        "console.stopped",
        "receiver.stopped",
        "worker.stopped",
        "relay.stopped",
    ]
    assert len(target.calls) == 1
    for secret in SECRETS:
        assert secret not in alone.output()


@pytest.mark.parametrize(
    ("position", "name"), [(0, "redis"), (1, "worker"), (2, "receiver"), (3, "console")]
)
async def test_dead_child_stops_everything(alone: Relay, position: int, name: str) -> None:
    process = await up(alone)
    os.kill(children(process)[position], signal.SIGKILL)

    async with asyncio.timeout(60):
        code = await process.process.wait()
    await process.stop()

    assert code == 1
    [died] = process.find("process.died")
    assert (died["process"], died["how"]) == (name, "killed by SIGKILL")
    assert f"{name} ended (killed by SIGKILL), so everything was stopped\n" in process.output


async def test_up_stops_while_its_server_is_silent(alone: Relay, tmp_path: Path) -> None:
    silent = tmp_path / "bin" / "valkey-server"
    silent.parent.mkdir()
    silent.write_text("#!/bin/sh\necho started >&2\nexec sleep 600\n")
    silent.chmod(0o700)
    path = f"{silent.parent}:{os.environ['PATH']}"
    relay = Relay(alone.folder, {**alone.environ, "PATH": path})
    process = await relay.start(*COMMAND, "up")
    await until(lambda: "started\n" in process.output)

    assert await process.stop() == 0
    assert [entry["event"] for entry in process.audit] == ["relay.stopped"]


async def test_second_up_in_the_same_folder_is_refused(alone: Relay) -> None:
    await up(alone)

    second = await alone.start(*COMMAND, "up")

    async with asyncio.timeout(20):
        assert await second.process.wait() == 1
    await second.stop()
    assert "another relay already uses" in "".join(second.output)


async def test_up_without_a_console(alone: Relay) -> None:
    relay = Relay(alone.folder, {**alone.environ, "RELAY_CONSOLE_PORT": "off"})
    process = await relay.start(*COMMAND, "up")
    await process.wait_for("receiver.started")
    await process.wait_for("worker.started")

    assert len(children(process)) == 3
    assert await process.stop() == 0


async def test_up_refuses_a_file_with_mistakes(alone: Relay) -> None:
    alone.write("sources: {}\n")

    process = await alone.start(*COMMAND, "up")

    async with asyncio.timeout(20):
        assert await process.process.wait() == 1
    await process.stop()
    assert "must name at least one git server" in "".join(process.output)


async def test_demo_confirms_both_deploys(alone: Relay, store: redis.Redis) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "demo", "--once", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()

    assert process.returncode == 0
    assert b"both deploys are confirmed; the platform was called 2 times" in output
    assert output.count(b"deploy.succeeded") == 2
    assert store.keys("*") == []


def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(NoEmbeddedServer, match=r"install valkey or redis, or .*embedded"):
        find_server()


def test_socket_path_that_is_too_long() -> None:
    with pytest.raises(NoEmbeddedServer, match=r"choose a shorter RELAY_DATA_DIR"):
        server_command(Path("/x" * 60) / "redis.sock", "always")
