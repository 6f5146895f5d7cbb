"""Redis goes away under real receivers: what was acknowledged is in the queue once, in order."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from rq import Queue

from tests.harness import (
    COMMAND,
    PATIENCE,
    Process,
    Relay,
    children,
    github_headers,
    github_push,
    start_server,
    until,
)


class Server:
    """A Redis-compatible server that may be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.process, self.socket = start_server(self.folder)
        self.client = redis.Redis(unix_socket_path=str(self.socket))

    async def answers(self) -> None:
        def ping() -> bool:
            with suppress(redis.RedisError, OSError):
                return bool(self.client.ping())
            return False

        await until(ping)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self.client.close()

    def queue(self) -> list[str]:
        return Queue("deploy-relay", connection=self.client).job_ids


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        made = Server(Path(folder))
        yield made
        made.kill()


@pytest.fixture
async def project(relay: Relay, server: Server) -> AsyncIterator[Relay]:
    """The project at a server of the test's own, with little patience."""
    environ = {
        **relay.environ,
        "RELAY_REDIS_URL": f"unix://{server.socket}",
        "RELAY_STORE_TIMEOUT": "400ms",
    }
    made = Relay(relay.folder, environ)
    await server.answers()
    yield made
    for process in made.processes:
        await process.stop()


class Load:
    """Senders that each wait for one answer before the next webhook, as long as it runs."""

    def __init__(self, relay: Relay, senders: int) -> None:
        self.acknowledged: list[list[str]] = [[] for _ in range(senders)]
        self.answers: list[tuple[int, str]] = []
        self._relay = relay
        self._stop = False
        self._tasks = [asyncio.create_task(self._send(number)) for number in range(senders)]

    async def _send(self, sender: int) -> None:
        mine = self.acknowledged[sender]
        async with aiohttp.ClientSession() as session:
            while not self._stop:
                name = f"{sender}-{len(mine)}"
                body = github_push(note=name)
                url = f"{self._relay.url}/hooks/github"
                headers = github_headers(body, delivery=name)
                async with session.post(url, data=body, headers=headers) as response:
                    answer = await response.json()
                    self.answers.append((response.status, answer["status"]))
                    assert response.status == 202, answer
                    mine.append(answer["delivery"])
                await asyncio.sleep(0.002)

    async def until(self, answer: str, count: int = 40) -> None:
        """Return once so many more answers of a kind have come."""
        seen = len(self.answers)
        await until(
            lambda: (
                sum(status == answer for _, status in self.answers[seen:]) >= count
                or any(task.done() for task in self._tasks)
            )
        )

    async def end(self) -> list[list[str]]:
        self._stop = True
        await asyncio.gather(*self._tasks)
        return self.acknowledged


def spooled_files(relay: Relay) -> list[Path]:
    return list((relay.folder / "relay-data" / "spool").iterdir())


def of_sender(names: list[str], sender: int) -> list[str]:
    return [name for name in names if name.startswith(f"github--{sender}-")]


async def readyz(relay: Relay) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{relay.url}/readyz") as response,
    ):
        return response.status, await response.json()


async def several(relay: Relay, number: int) -> Process:
    receivers = await relay.start(*COMMAND, "serve", "--processes", str(number))
    [started, *_] = await receivers.wait_for("receiver.started", count=number)
    relay.url = started["url"].removesuffix("/hooks/")
    return receivers


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_all_that_was_acknowledged_is_queued_once_and_in_order(
    project: Relay, server: Server, how: str
) -> None:
    receivers = await several(project, 2)
    load = Load(project, 6)
    await load.until("queued")
    if how == "stopped":
        server.signal(signal.SIGSTOP)
    else:
        server.kill()
    await load.until("spooled", 200)
    assert spooled_files(project)
    if how == "stopped":
        server.signal(signal.SIGCONT)
    else:
        server.start()
    await load.until("queued")
    acknowledged = await load.end()
    await until(lambda: not spooled_files(project))

    queue = server.queue()
    for sender, names in enumerate(acknowledged):
        assert of_sender(queue, sender) == names
    assert len(queue) == sum(map(len, acknowledged))
    assert await receivers.stop() == 0
    spooled = [line["delivery"] for line in receivers.find("delivery.spooled")]
    assert len(spooled) >= 200
    forwarded = receivers.find("delivery.forwarded", verdict="queued")
    assert sorted(line["delivery"] for line in forwarded) == sorted(spooled)
    queued = receivers.find("delivery.queued", again=False)
    assert sorted(line["delivery"] for line in queued) == sorted(queue)
    assert not receivers.find("delivery.duplicate")


async def test_a_killed_receiver_leaves_its_spool_to_the_next_one(
    project: Relay, server: Server
) -> None:
    receivers = await several(project, 2)
    server.signal(signal.SIGSTOP)
    load = Load(project, 4)
    await load.until("spooled", 100)
    acknowledged = await load.end()
    for child in children(receivers):
        await (await asyncio.create_subprocess_exec("kill", "-9", str(child))).wait()
    await receivers.stop(signal.SIGKILL)
    assert spooled_files(project)

    server.signal(signal.SIGCONT)
    receiver = await project.start(*COMMAND, "serve")
    await receiver.wait_for("receiver.recovered")

    queue = server.queue()
    assert sorted(queue) == sorted(name for names in acknowledged for name in names)
    assert receiver.find("receiver.degraded")
    assert len(receiver.find("delivery.forwarded", verdict="queued")) >= 100
    assert spooled_files(project) == []


async def test_stopped_in_order_it_leaves_its_spool_too(project: Relay, server: Server) -> None:
    server.kill()
    receiver = await project.serve()
    spooled = {"status": "spooled", "delivery": "github--1"}
    assert await project.push(delivery="1") == (202, spooled)
    assert await receiver.stop() == 0

    # Switched off with deliveries in it, the spool is not forgotten.
    environ, project.environ = project.environ, {**project.environ, "RELAY_SPOOL_MAX_BYTES": "0"}
    assert "deliveries wait in " in await refusal(project)

    server.start()
    project.environ = environ
    receiver = await project.serve()
    await receiver.wait_for("delivery.forwarded", delivery="github--1", verdict="queued")
    assert server.queue() == ["github--1"]


Refusal = Callable[[redis.Redis, bool], object]


def out_of_memory(client: redis.Redis, it_is: bool) -> object:
    return client.config_set("maxmemory", int(it_is))


def read_only(client: redis.Redis, it_is: bool) -> object:
    return client.replicaof("127.0.0.1", "9") if it_is else client.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("error", "set_to"), [("OutOfMemoryError", out_of_memory), ("ReadOnlyError", read_only)]
)
async def test_a_redis_that_answers_but_takes_nothing(
    project: Relay, server: Server, error: str, set_to: Refusal
) -> None:
    receiver = await project.serve()
    fine = {"routes": "ok", "audit": "ok"}
    ready = {"status": "ready", "redis": "ok", "spool": "empty", **fine}
    assert await readyz(project) == (200, ready)
    assert await project.push(delivery="1", note="1") == (
        202,
        {"status": "queued", "delivery": "github--1"},
    )
    set_to(server.client, True)

    why = f"Redis takes nothing ({error})"
    degraded = {"status": "degraded", "redis": why, "spool": "in use", **fine}
    assert await readyz(project) == (200, degraded)
    for number in ("2", "2", "3"):
        assert await project.push(delivery=number, note=number) == (
            202,
            {"status": "spooled", "delivery": f"github--{number}"},
        )
    assert await project.push(delivery="1", note="1") == (
        202,
        {"status": "spooled", "delivery": "github--1"},
    )
    assert await readyz(project) == (200, degraded)
    assert server.queue() == ["github--1"]
    set_to(server.client, False)
    await receiver.wait_for("receiver.recovered")

    assert server.queue() == ["github--1", "github--2", "github--3"]
    assert await readyz(project) == (200, ready)
    assert await project.push(delivery="3", note="3") == (
        200,
        {"status": "duplicate", "delivery": "github--3"},
    )
    forwarded = receiver.find("delivery.forwarded")
    assert [(line["delivery"], line["verdict"]) for line in forwarded] == [
        ("github--2", "queued"),
        ("github--2", "duplicate"),
        ("github--3", "queued"),
        ("github--1", "duplicate"),
    ]
    await receiver.wait_for("delivery.duplicate", count=3)
    told = [line["event"] for line in receiver.audit if line.get("delivery") == "github--2"]
    assert told == [
        *("delivery.received", "delivery.spooled") * 2,
        *("delivery.forwarded", "delivery.queued"),
        *("delivery.forwarded", "delivery.duplicate"),
    ]
    [spooled, *_] = receiver.find("delivery.spooled")
    assert (spooled["reason"], spooled["repo"], spooled["level"]) == (why, "acme/web", "warning")


async def test_a_full_spool_is_503_with_retry_after(relay: Relay, server: Server) -> None:
    project = Relay(
        relay.folder,
        {
            **relay.environ,
            "RELAY_REDIS_URL": f"unix://{server.socket}",
            "RELAY_SPOOL_MAX_BYTES": "1000",
        },
    )
    await server.answers()
    server.kill()
    receiver = await project.serve()
    taken: list[str] = []
    while (answer := await project.push(delivery=str(len(taken)), note=str(len(taken))))[0] == 202:
        taken.append(answer[1]["delivery"])
    assert answer == (503, {"status": "unavailable", "error": "try again later"})
    [line] = await receiver.wait_for("delivery.rejected")
    assert line["reason"].startswith("the spool is full (")
    assert (line["delivery"], line["status"]) == (f"github--{len(taken)}", 503)
    assert 1 <= len(taken) <= 3
    code, ready = await readyz(project)
    assert (code, ready["status"], ready["spool"]) == (503, "not ready", line["reason"])

    server.start()
    await receiver.wait_for("receiver.recovered")
    assert server.queue() == taken
    assert (await project.push(delivery="after", note="after"))[1]["status"] == "queued"
    await receiver.stop()


async def test_a_folder_that_cannot_be_used_is_said_at_the_start(project: Relay) -> None:
    (project.folder / "relay-data").write_text("a file")
    assert "cannot be used (Not a directory)" in await refusal(project)


async def refusal(project: Relay) -> str:
    """What a receiver says that does not start."""
    receiver = await project.start(*COMMAND, "serve")
    await until(lambda: receiver.process.returncode is not None)
    assert await receiver.stop() == 1
    [line] = receiver.output
    assert "RELAY_SPOOL_MAX_BYTES" in line
    return line
