"""The endpoint's answers: which status, which body, which audit line, and nothing stored."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp.test_utils import TestClient
from aiohttp.web import Application, Request
from pydantic import SecretStr

from config.model import Route, Source
from relay.app import senders
from relay.intake import Intake
from relay.receiver import Receiver
from relay.routing import Router
from relay.store import connect_async
from tests.harness import GITHUB_SECRET, github_headers, github_push

Client = TestClient[Request, Application]
MakeClient = Callable[[Application], Awaitable[Client]]


def route(**keys: Any) -> Route:
    return Route.model_validate(
        {"name": "web", "repo": "acme/web", "on": "push", "branches": "main", "deploy": "t", **keys}
    )


def source(**keys: Any) -> Source:
    made = Source.model_validate({"provider": "github", "secrets": [{"env": "X"}], **keys})
    for ref in made.secrets:
        ref.keep(SecretStr(GITHUB_SECRET))
    return made


@pytest.fixture
async def client(
    aiohttp_client: MakeClient, store: redis.Redis, server_socket: Path
) -> AsyncIterator[Client]:
    async for made in build(aiohttp_client, f"unix://{server_socket}"):
        yield made


async def build(
    make: MakeClient, address: str, routes: tuple[Route, ...] = (route(),), *, max_body: int = 4096
) -> AsyncIterator[Client]:
    connection = connect_async(address, timeout=0.5)
    intake = Intake(connection, queue="q", window=60, failure_ttl=60, timeout=0.5)
    receiver = Receiver(
        senders=senders({"github": source(repos=["acme/*"])}),
        router=Router(routes),
        intake=intake,
        max_body=max_body,
        body_timeout=0.3,
    )
    yield await make(receiver.application())
    await intake.drain()
    await connection.aclose()


async def post(
    client: Client, body: bytes, headers: dict[str, str], path: str = "/hooks/github"
) -> tuple[int, dict[str, Any]]:
    async with client.post(path, data=body, headers=headers) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_accepted(client: Client, store: redis.Redis) -> None:
    body = github_push()

    answer = await post(client, body, github_headers(body, delivery="1"))

    assert answer == (202, {"status": "queued", "delivery": "github--1"})
    assert store.lrange("rq:queue:q", 0, -1) == [b"github--1"]


@pytest.mark.parametrize(
    ("push", "reason"),
    [
        ({"ref": "refs/heads/topic"}, "web: branch 'topic' does not match branches: main"),
        ({"repo": "acme/other"}, "no route for repository acme/other"),
        ({"repo": "evil/web"}, "source github may not speak for evil/web"),
        ({"ref": "refs/tags/v1"}, "web: on is push, this is a tag"),
    ],
)
async def test_unwanted_is_ignored_with_the_reason_and_not_stored(
    client: Client, store: redis.Redis, push: dict[str, str], reason: str
) -> None:
    body = github_push(**push)

    code, answer = await post(client, body, github_headers(body, delivery="1"))

    assert code == 200
    assert answer == {"status": "ignored", "delivery": "github--1", "reason": reason}
    assert store.keys("*") == []


async def test_ping(client: Client) -> None:
    body = b'{"zen": "Keep it simple."}'

    code, answer = await post(client, body, github_headers(body, event="ping"))

    assert (code, answer["status"]) == (200, "ignored")
    assert answer["reason"].startswith("ping")


async def test_event_header_that_is_no_text(client: Client) -> None:
    body = b"{}"
    signed = github_headers(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    signed["X-GitHub-Event"] = "\udcff"
    lines = [f"{key}: {value}" for key, value in signed.items()]
    head = ["POST /hooks/github HTTP/1.1", "Host: x", "Content-Length: 2", *lines, "", "{}"]
    writer.write("\r\n".join(head).encode(errors="surrogateescape"))
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()

    assert b" 200 " in status or b" 400 " in status


async def test_form_body(client: Client) -> None:
    body = b"payload=%7B%22ref%22%3A1%7D"
    headers = github_headers(body) | {"Content-Type": "application/x-www-form-urlencoded"}

    code, answer = await post(client, body, headers)

    assert (code, answer["error"]) == (400, "body not understood")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"ref": 1}', b"\xff", b"[" * 3000, b"NaN"])
async def test_malformed_after_verification_is_400(client: Client, body: bytes) -> None:
    answer = await post(client, body, github_headers(body))

    assert answer == (400, {"status": "rejected", "error": "body not understood"})


async def test_unsigned_is_401_and_says_nothing_more(client: Client, store: redis.Redis) -> None:
    body = b"not even JSON"

    answer = await post(client, body, {"Content-Type": "application/json"})

    assert answer == (401, {"status": "rejected", "error": "signature missing or wrong"})
    assert store.keys("*") == []


async def test_unknown_source_is_404(client: Client) -> None:
    body = github_push()

    answer = await post(client, body, github_headers(body), "/hooks/nobody")

    assert answer == (404, {"status": "rejected", "error": "unknown source"})


async def test_other_paths_and_methods(client: Client) -> None:
    async with client.get("/hooks/github") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert await response.json() == {"status": "rejected", "error": "method not allowed"}
    async with client.get("/") as response:
        assert response.status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_other_media_types_are_415(client: Client, headers: dict[str, str]) -> None:
    body = github_push()

    answer = await post(client, body, github_headers(body) | headers)

    assert answer == (415, {"status": "rejected", "error": "unsupported media type"})


async def test_announced_size_over_the_limit_is_413(client: Client) -> None:
    body = b" " * 5000

    answer = await post(client, body, github_headers(body))

    assert answer == (413, {"status": "rejected", "error": "body too large"})


async def test_size_over_the_limit_is_413_while_reading(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * 1000

    async with client.post(
        "/hooks/github", data=chunks(), headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 413


async def test_body_that_does_not_come_is_408(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(
        b"POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10\r\n\r\n{"
    )
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()

    assert b" 408 " in status


async def test_without_redis_it_is_503_with_retry_after(aiohttp_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    body = github_push()
    async for client in build(aiohttp_client, f"redis://127.0.0.1:{port}"):
        async with client.post(
            "/hooks/github", data=body, headers=github_headers(body)
        ) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert await response.json() == {"status": "unavailable", "error": "try again later"}
        async with client.get("/healthz") as response:
            assert response.status == 200
        async with client.get("/readyz") as response:
            assert response.status == 503
            answer = await response.json()
            assert answer["redis"] == "Redis is not reachable (ConnectionError)"
            assert answer["routes"] == "ok"


async def test_ready(client: Client) -> None:
    async with client.get("/readyz") as response:
        assert response.status == 200
        assert await response.json() == {"status": "ready", "redis": "ok", "routes": "ok"}


async def test_not_ready_without_routes(
    aiohttp_client: MakeClient, store: redis.Redis, server_socket: Path
) -> None:
    async for client in build(aiohttp_client, f"unix://{server_socket}", routes=()):
        async with client.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["routes"] == "relay.yaml has no routes"


async def test_rejection_is_audited_without_what_was_sent(
    audited: io.BytesIO, client: Client
) -> None:
    body = github_push()
    headers = github_headers(body, secret="guess") | {"User-Agent": "evil\u00ff" * 50}

    await post(client, body, headers)

    [line] = [
        json.loads(text) for text in audited.getvalue().splitlines() if b"delivery.rejected" in text
    ]
    assert line["reason"] == "no configured secret made this signature"
    assert line["status"] == 401
    assert line["source"] == "github"
    assert len(line["user_agent"]) < 400
    assert headers["X-Hub-Signature-256"] not in str(line)
