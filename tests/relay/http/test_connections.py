"""Connections that say nothing, or too little, and too many of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from relay.http.connections import OTHER_FILES, ConnectionBounds, Server
from relay.http.responses import final_answer
from tests.harness import PATIENCE, until

Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]

REQUEST = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"


class Receiver:
    """Answers with the path, those to ``/slow`` when it is released, and keeps what it hears."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.heard: list[str] = []
        self.turned_away: list[tuple[str, int, str]] = []

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.heard.append(request.path)
        if request.path == "/slow":
            await self.release.wait()
        if request.path == "/body":
            await request.read()
        return web.Response(text=request.path)

    def not_http(self, _: web.BaseRequest, status: int) -> web.Response:
        return web.Response(status=status)

    def turn_away(self, remote: str, status: int, reason: str) -> bytes:
        self.turned_away.append((remote, status, reason))
        return final_answer(status, error=reason)


class Served:
    """A server, and connections to it."""

    def __init__(self, **bounds: Any) -> None:
        self.receiver = Receiver()
        self.server = Server(self.receiver, ConnectionBounds(**bounds), self.receiver.handle)
        self.runner = web.ServerRunner(self.server)
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, first: bytes = b"") -> Connected:
        if not self.runner.sites:
            await self.runner.setup()
            await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        host, port = self.runner.addresses[0][:2]
        reader, writer = await asyncio.open_connection(host, port)
        self.writers.append(writer)
        writer.write(first)
        return reader, writer

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
        self.receiver.release.set()
        await self.runner.cleanup()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(**bounds: Any) -> Served:
        started.append(Served(**bounds))
        return started[-1]

    yield start
    for served in started:
        await served.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.read()


async def answered(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        await reader.readexactly(length)
        return head.split()[1]


@pytest.mark.parametrize("first", [b"", b"G", b"POST /hooks/github HTTP/1.1\r\nHost: x\r\nA: "])
async def test_headers_that_do_not_come_are_408(serve: Callable[..., Served], first: bytes) -> None:
    served = serve(header_timeout=0.1)
    reader, _ = await served.connect(first)

    answer = await ended(reader)

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    reason = "no complete headers after 0.1 s"
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": reason}
    assert served.receiver.turned_away == [("127.0.0.1", 408, reason)]
    await until(lambda: not served.server.open)


async def test_bytes_that_trickle_do_not_win_time(serve: Callable[..., Served]) -> None:
    served = serve(header_timeout=0.3)
    reader, writer = await served.connect(REQUEST % b"")
    assert await answered(reader) == b"200"

    async def trickle() -> None:
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while True:
            await asyncio.sleep(0.02)
            writer.write(b"x")

    trickling = asyncio.create_task(trickle())
    started = asyncio.get_running_loop().time()
    answer = await ended(reader)
    trickling.cancel()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert asyncio.get_running_loop().time() - started < PATIENCE


async def test_headers_that_come_in_time_are_answered_and_time_no_more(
    serve: Callable[..., Served],
) -> None:
    # Long enough that a busy machine sends headers in time.
    served = serve(header_timeout=1)
    request = REQUEST % b"slow"
    reader, writer = await served.connect(request[:9])
    await asyncio.sleep(0.05)
    writer.write(request[9:])
    await until(lambda: served.receiver.heard)
    # The handler takes longer than headers may, and the pause after it too.
    await asyncio.sleep(1.2)
    served.receiver.release.set()
    assert await answered(reader) == b"200"
    await asyncio.sleep(1.2)
    writer.write(REQUEST % b"again")
    assert await answered(reader) == b"200"
    # Neither does one that is answered at once, and then rests while its headers' time would end.
    quick, writer = await served.connect(REQUEST % b"quick")
    assert await answered(quick) == b"200"
    await asyncio.sleep(1.2)
    writer.write(REQUEST % b"again")

    assert await answered(quick) == b"200"
    assert served.receiver.turned_away == []


async def test_an_idle_connection_is_closed(serve: Callable[..., Served]) -> None:
    served = serve(keep_alive=0.1)
    reader, _ = await served.connect(REQUEST % b"")
    assert await answered(reader) == b"200"

    assert await ended(reader) == b""
    assert served.receiver.turned_away == []


async def test_the_oldest_that_never_spoke_makes_room(serve: Callable[..., Served]) -> None:
    served = serve(most=3)
    idle, _ = await served.connect(REQUEST % b"idle")
    assert await answered(idle) == b"200"
    first, _ = await served.connect(b"GET /half")
    second, _ = await served.connect()

    newest, writer = await served.connect(REQUEST % b"new")

    assert await answered(newest) == b"200"
    assert await ended(first) == b""
    writer.write(REQUEST % b"again")
    assert await answered(newest) == b"200"
    another, _ = await served.connect(REQUEST % b"another")
    assert await answered(another) == b"200"
    assert await ended(second) == b""
    # Nobody is left who never spoke: now the idle one goes.
    last, _ = await served.connect(REQUEST % b"last")
    assert await answered(last) == b"200"
    assert await ended(idle) == b""
    assert served.receiver.turned_away == []


async def test_a_body_that_trickles_makes_room_before_what_is_busy(
    serve: Callable[..., Served],
) -> None:
    served = serve(most=2)
    busy, _ = await served.connect(REQUEST % b"slow")
    trickling, _ = await served.connect(
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1"
    )
    await until(lambda: len(served.receiver.heard) == 2)

    newest, _ = await served.connect(REQUEST % b"new")

    assert await answered(newest) == b"200"
    assert await ended(trickling) == b""
    served.receiver.release.set()
    assert await answered(busy) == b"200"


async def test_where_all_are_busy_the_newest_is_turned_away(serve: Callable[..., Served]) -> None:
    served = serve(most=2)
    busy = [await served.connect(REQUEST % b"slow") for _ in range(2)]
    await until(lambda: len(served.receiver.heard) == 2)

    newest, _ = await served.connect()

    assert (await ended(newest)).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert served.receiver.turned_away == [("127.0.0.1", 503, "all 2 connections are busy")]
    served.receiver.release.set()
    assert [await answered(reader) for reader, _ in busy] == [b"200", b"200"]


async def test_a_flood_leaves_no_more_than_the_bound(serve: Callable[..., Served]) -> None:
    served = serve(most=50)
    flood = [await served.connect(b"GET / HTTP/1.1\r\n") for _ in range(300)]

    assert len(served.server.open) <= 50
    gone = [reader for reader, _ in flood[:200]]
    assert [await ended(reader) for reader in gone] == [b""] * 200


async def test_a_body_on_its_way_arrives_though_the_server_stops(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    reader, writer = await served.connect(
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1"
    )
    await until(lambda: served.receiver.heard)
    stopping = asyncio.create_task(served.runner.cleanup())
    await until(lambda: not served.runner.sites)
    await asyncio.sleep(0.1)

    writer.write(b"2")

    assert await answered(reader) == b"200"
    await stopping
    assert await ended(reader) == b""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "granted", "left"),
    [
        (200, 500, 100, 100, 200),
        (200, 500, 300, 300, 300 + OTHER_FILES),
        (200, 500, 9000, 500 - OTHER_FILES, 500),
        (40, 40, 9000, 1, 40),
    ],
)
def test_no_more_connections_than_the_system_has_files_for(
    soft: int, hard: int, wanted: int, granted: int, left: int
) -> None:
    code = (
        "import resource; from relay.http.connections import most_connections as most;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        f"print(most({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert told.stdout.split() == [str(granted), str(left)]
