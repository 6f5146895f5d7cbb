"""The outgoing call against real servers: bounds, redirects, headers, and reasons without URLs."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from relay.planning import Call
from tests.harness import Target
from workers.errors import CallFailed, DeployFailed
from workers.platform.http_client import MAX_ANSWER, USER_AGENT, PlatformClient, open_client
from workers.platform.response import Answer


@pytest.fixture
async def client() -> AsyncIterator[PlatformClient]:
    async with open_client([ip_network("127.0.0.0/8")]) as opened:
        yield opened


async def call(
    client: PlatformClient, url: str, *, method: str = "GET", total: float = 5, connect: float = 2
) -> Answer:
    return await client.call(
        Call(method, url, {"X-Own": "1"}, b"{}" if method == "POST" else None),
        idempotency_key="key-1",
        total=total,
        connect=connect,
    )


async def test_answer_and_headers(client: PlatformClient, target: Target) -> None:
    answer = await call(client, f"{target.url}/a%2Fb?x=%20", method="POST")

    assert answer.status == 200
    assert b"dep-1" in answer.body
    [(_, method, path, headers, body)] = target.calls
    assert (method, path, body) == ("POST", "/a%2Fb?x=%20", b"{}")
    assert headers["X-Own"] == "1"
    assert headers["Idempotency-Key"] == "key-1"
    assert headers["User-Agent"].startswith("deploy-relay/")


async def test_our_own_headers_replace_those_of_another_case(
    client: PlatformClient, target: Target
) -> None:
    seen: list[CIMultiDictProxy[str]] = []

    async def look(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers)
        return web.Response()

    target.answer = look
    # aiohttp sends one of those whose names differ in case alone, and that is the last.
    given = {"user-agent": "x", "ACCEPT-ENCODING": "gzip", "idempotency-KEY": "x", "X-Own": "1"}

    await client.call(
        Call("GET", target.url, given, None), idempotency_key="key-1", total=5, connect=2
    )

    [headers] = seen
    assert headers.getall("User-Agent") == [USER_AGENT]
    assert headers.getall("Accept-Encoding") == ["identity"]
    assert headers.getall("Idempotency-Key") == ["key-1"]
    assert headers["X-Own"] == "1"


async def test_long_answer_is_cut(client: PlatformClient, target: Target) -> None:
    async def long(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * (3 * MAX_ANSWER))

    target.answer = long

    assert len((await call(client, target.url)).body) == MAX_ANSWER


async def test_redirect_on_the_same_server_is_followed(
    client: PlatformClient, target: Target
) -> None:
    async def onward(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/onward"})

    target.answers = [onward]

    assert (await call(client, f"{target.url}/first")).status == 200
    assert [path for _, _, path, _, _ in target.calls] == ["/first", "/onward"]


async def test_redirect_elsewhere_is_not_followed(client: PlatformClient, target: Target) -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "http://localhost:1/stolen"})

    target.answer = elsewhere

    assert (await call(client, target.url)).status == 307
    assert len(target.calls) == 1


async def test_post_is_not_turned_into_get(client: PlatformClient, target: Target) -> None:
    async def see_other(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/other"})

    target.answer = see_other

    assert (await call(client, target.url, method="POST")).status == 302
    assert len(target.calls) == 1


async def test_endless_redirects_end(client: PlatformClient, target: Target) -> None:
    async def again(_: web.Request) -> web.StreamResponse:
        return web.Response(status=301, headers={"Location": "/again"})

    target.answer = again

    with pytest.raises(DeployFailed, match=r"more than 3 redirects"):
        await call(client, target.url)


async def test_no_answer_in_time(client: PlatformClient, target: Target) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    target.answer = never

    with pytest.raises(CallFailed, match=r"^no answer in time$") as raised:
        await call(client, f"{target.url}/secret-path", total=0.2)
    assert raised.value.uncertain


async def test_refused_connection_names_no_url(client: PlatformClient) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

    with pytest.raises(CallFailed, match=r"^connection failed: ") as raised:
        await call(client, f"http://127.0.0.1:{port}/secret-path")

    assert not raised.value.uncertain
    assert "secret-path" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


async def test_connection_cut_off(client: PlatformClient) -> None:
    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises(CallFailed) as raised:
        await call(client, f"http://127.0.0.1:{port}/secret-path")
    assert raised.value.uncertain
    server.close()


async def test_connection_that_is_not_accepted_in_time(client: PlatformClient) -> None:
    with socket.socket() as server, ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        # Linux lets one connection more than asked for wait, and answers no other.
        for _ in range(2):
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(server.getsockname())

        with pytest.raises(CallFailed, match=r"^connection timed out$") as raised:
            await call(client, f"http://127.0.0.1:{server.getsockname()[1]}/", connect=0.2)
    assert not raised.value.uncertain


async def test_failure_after_a_redirect_is_uncertain(client: PlatformClient) -> None:
    async def onward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        server.close()
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: /onward\r\nContent-Length: 0\r\n"
            b"Connection: close\r\n\r\n"
        )
        writer.close()

    server = await asyncio.start_server(onward, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises(CallFailed, match=r"^connection failed: ") as raised:
        await call(client, f"http://127.0.0.1:{port}/hook")
    assert raised.value.uncertain


async def test_tls_to_a_server_without_it(client: PlatformClient, target: Target) -> None:
    with pytest.raises(CallFailed, match=r"^(TLS handshake|connection) failed") as raised:
        await call(client, target.url.replace("http://", "https://"))
    assert not raised.value.uncertain
    assert target.calls == []


async def test_certificate_nobody_vouches_for(client: PlatformClient, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = await asyncio.create_subprocess_exec(
        *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
        *("-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await made.wait() == 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises(CallFailed, match=r"^TLS certificate not accepted$") as raised:
        await call(client, f"https://127.0.0.1:{port}/")
    assert not raised.value.uncertain
    server.close()


@pytest.mark.parametrize(
    "url",
    [
        "http:///nowhere",
        "http://host:70000/",
        "http://host:80a/",
        "http://[::1/",
        f"http://{'a' * 64}.example/",
        "http://a..example/",
    ],
)
async def test_url_that_is_none(client: PlatformClient, url: str) -> None:
    with pytest.raises(DeployFailed, match=r"^the target's URL is not a URL$"):
        await call(client, url)


async def test_a_connection_that_breaks_is_not_tried_again(client: PlatformClient) -> None:
    """Not even where the method is GET and the connection has been used before."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            requests.append(head)
            if len(requests) > 1:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    assert (await call(client, url)).status == 200

    with pytest.raises(CallFailed, match=r"closed the connection without an answer"):
        await call(client, url)

    assert len(requests) == 2
    server.close()


async def test_the_bound_in_time_is_for_all_redirects_together(
    client: PlatformClient, target: Target
) -> None:
    async def slowly(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1)
        return web.Response(status=302, headers={"Location": "/again"})

    target.answer = slowly

    with pytest.raises(CallFailed, match=r"^no answer in time$"):
        await call(client, target.url, total=1.9)
    assert len(target.calls) == 2
