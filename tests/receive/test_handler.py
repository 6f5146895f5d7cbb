"""The endpoint's answers: which status, which body, which audit line, and nothing stored."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import BaseTestServer, TestClient
from aiohttp.web import BaseRequest, ServerRunner

from config.model import Route
from relay import audit
from relay.http.limits import FREE, ByteBudget
from relay.receive.handler import Receiver
from tests.harness import github_headers, github_push, until
from tests.receive.desk import CONFIG, Desk, deliveries, locked, route, running

Client = TestClient[BaseRequest, None]
MakeClient = Callable[[BaseTestServer], Awaitable[Client]]


class Server(BaseTestServer):
    """Serves as `deploy-relay serve` does: a handler goes on when its sender has gone."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        super().__init__()

    async def _make_runner(self, **_: Any) -> ServerRunner:
        return ServerRunner(self._receiver.server())


@pytest.fixture
async def client(aiohttp_client: MakeClient, tmp_path: Path) -> AsyncIterator[Client]:
    async for made in build(aiohttp_client, tmp_path):
        yield made


async def build(
    make: MakeClient,
    folder: Path,
    routes: tuple[Route, ...] = (route(),),
    *,
    desks: list[Desk] | None = None,
    max_body: int = 4096,
    bodies: ByteBudget | None = None,
    trusted: Sequence[str] = (),
    **keys: Any,
) -> AsyncIterator[Client]:
    """``desks`` is given what the receiver works with."""
    async with running(
        folder, routes, max_body=max_body, bodies=bodies, trusted=trusted, **keys
    ) as desk:
        if desks is not None:
            desks.append(desk)
        yield await make(Server(desk.receiver))


async def post(
    client: Client, body: bytes, headers: dict[str, str], path: str = "/hooks/github"
) -> tuple[int, dict[str, Any]]:
    async with client.post(path, data=body, headers=headers) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_accepted(client: Client, tmp_path: Path) -> None:
    body = github_push()

    answer = await post(client, body, github_headers(body, delivery="1"))

    assert answer == (202, {"status": "queued", "delivery": "delivery-1"})
    [row] = deliveries(tmp_path)
    assert (row["guid"], row["status"], row["verdict"]) == ("1", "queued", "new")
    assert (row["source"], row["remote"], row["config"]) == ("github", "127.0.0.1", CONFIG)


@pytest.mark.parametrize(
    ("push", "reason"),
    [
        ({"ref": "refs/heads/topic"}, "web: branch 'topic' does not match branches: main"),
        ({"repo": "acme/other"}, "no route for repository acme/other"),
        ({"ref": "refs/tags/v1"}, "web: on is push, this is a tag"),
    ],
)
async def test_unwanted_is_ignored_with_the_reason(
    client: Client, tmp_path: Path, push: dict[str, str], reason: str
) -> None:
    body = github_push(**push)

    code, answer = await post(client, body, github_headers(body, delivery="1"))

    assert code == 200
    assert answer == {"status": "ignored", "delivery": "delivery-1", "reason": reason}
    [row] = deliveries(tmp_path)
    assert (row["status"], row["reason"]) == ("ignored", reason)


async def test_a_source_that_may_not_speak_for_a_repository_leaves_a_line_only(
    audited: io.BytesIO, client: Client, tmp_path: Path
) -> None:
    body = github_push(repo="evil/web")

    code, answer = await post(client, body, github_headers(body, delivery="1"))

    reason = "source github may not speak for evil/web"
    assert (code, answer) == (200, {"status": "ignored", "delivery": "", "reason": reason})
    assert deliveries(tmp_path) == []
    [line] = lines_of(audited, "delivery.ignored")
    assert (line["delivery"], line["guid"], line["remote"]) == ("", "1", "127.0.0.1")


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


async def test_unsigned_is_401_and_says_nothing_more(client: Client, tmp_path: Path) -> None:
    body = b"not even JSON"

    answer = await post(client, body, {"Content-Type": "application/json"})

    assert answer == (401, {"status": "rejected", "error": "signature missing or wrong"})
    assert deliveries(tmp_path) == []


async def test_unknown_source_is_404(client: Client) -> None:
    body = github_push()

    answer = await post(client, body, github_headers(body), "/hooks/nobody")

    assert answer == (404, {"status": "rejected", "error": "unknown source"})


def lines_of(audited: io.BytesIO, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in audited.getvalue().splitlines()]
    return [line for line in lines if line["event"] == event]


def rejections(audited: io.BytesIO) -> list[dict[str, Any]]:
    return lines_of(audited, "delivery.rejected")


async def test_a_verified_delivery_that_is_refused_is_named(
    audited: io.BytesIO, client: Client
) -> None:
    number = {"action": "opened", "number": 10**30, "repository": {"full_name": "acme/web"}}
    ref = {"ref": "a", "sha": "1" * 40, "repo": {"full_name": "acme/web"}}
    body = json.dumps(number | {"pull_request": {"head": ref, "base": ref}}).encode()

    headers = github_headers(body, event="pull_request", delivery="1")
    answer = await post(client, body, headers)

    assert answer == (400, {"status": "rejected", "error": "body not understood"})
    [line] = rejections(audited)
    assert (line["source"], line["guid"]) == ("github", "1")
    assert "number" in line["reason"]


async def test_what_is_not_stored_is_named(
    aiohttp_client: MakeClient, audited: io.BytesIO, tmp_path: Path
) -> None:
    body = github_push()
    async for client in build(aiohttp_client, tmp_path, patience=0.2):
        async with locked(tmp_path):
            await post(client, body, github_headers(body, delivery="1"))
    [line] = rejections(audited)
    assert (line["guid"], line["repo"], line["status"]) == ("1", "acme/web", 503)


async def test_what_is_ignored_is_in_the_audit_first(
    aiohttp_client: MakeClient, audited: io.BytesIO, tmp_path: Path
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    body = github_push(ref="refs/heads/topic")
    audit.configure(stream=Full())
    async for client in build(aiohttp_client, tmp_path):
        code, _ = await post(client, body, github_headers(body, delivery="1"))
        audit.configure(stream=audited)
        audit.flush()

    assert code == 503
    [line] = rejections(audited)
    assert line["reason"] == ("standard output does not take the audit (No space left on device)")


async def test_what_is_no_http_is_answered_without_a_quotation(
    audited: io.BytesIO, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await raw(client, "POST /hooks/github HTTP/1.1\r\nHost: x\r\nA: q\x01uote\r\n\r\n")

    assert b" 400 " in answer.splitlines()[0]
    assert answer.endswith(b'{"status":"rejected","error":"not an HTTP request"}')
    [line] = rejections(audited)
    assert line["status"] == 400
    assert "quote" not in audited.getvalue().decode() + "".join(capfd.readouterr())


async def test_other_paths_and_methods(audited: io.BytesIO, client: Client) -> None:
    async with client.get("/hooks/github") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert await response.json() == {"status": "rejected", "error": "method not allowed"}
    async with client.get("/hook/github") as response:
        assert response.status == 404
        assert await response.json() == {"status": "rejected", "error": "not found"}
    assert [(line["status"], line["reason"]) for line in rejections(audited)] == [
        (405, "method GET, not POST"),
        (404, "no path /hook/github"),
    ]


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

    async with client.post("/hooks/github", data=chunks(), headers=github_headers(b"")) as response:
        assert response.status == 413


async def test_body_that_does_not_come_is_408(client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(head(b"", Content_Length="10").encode() + b"{")
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()

    assert b" 408 " in status


async def test_without_the_ledger_it_is_503_with_retry_after(
    aiohttp_client: MakeClient, tmp_path: Path
) -> None:
    body = github_push()
    async for client in build(aiohttp_client, tmp_path, patience=0.2):
        async with locked(tmp_path):
            async with client.post(
                "/hooks/github", data=body, headers=github_headers(body)
            ) as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) > 0
                answer = await response.json()
                assert answer == {"status": "unavailable", "error": "try again later"}
            async with client.get("/healthz") as response:
                assert response.status == 200
            async with client.get("/readyz") as response:
                assert response.status == 503
                answer = await response.json()
                assert answer["ledger"] == f"process {os.getpid()} holds the ledger's lock"
                assert answer["routes"] == "ok"
        assert deliveries(tmp_path) == []


async def test_ready(client: Client) -> None:
    async with client.get("/readyz") as response:
        assert response.status == 200
        assert await response.json() == {
            "status": "ready",
            "ledger": "ok",
            "queue": "ok",
            "routes": "ok",
            "audit": "ok",
        }


async def test_without_a_queue_or_routes_it_is_degraded(
    aiohttp_client: MakeClient, tmp_path: Path
) -> None:
    desks: list[Desk] = []
    async for client in build(aiohttp_client, tmp_path, routes=(), desks=desks):
        desks[0].waker.answer = "Redis takes no jobs (ConnectionError)"
        async with client.get("/readyz") as response:
            assert response.status == 200
            answer = await response.json()

    assert answer["status"] == "degraded"
    assert answer["queue"] == "Redis takes no jobs (ConnectionError)"
    assert answer["routes"] == "relay.yaml has no routes"


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


async def raw(client: Client, head: str, *parts: bytes) -> bytes:
    """All that comes back on a connection of one's own, up to the end of the final answer.

    Between two parts the sender waits for something to come back.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(head.encode())
    answer = b""
    async with asyncio.timeout(10):
        for number, part in enumerate(parts):
            if number:
                answer += await reader.readuntil(b"\r\n\r\n")
            writer.write(part)
        answer += await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", answer)
        answer += await reader.readexactly(int(length[1]) if length else 0)
    writer.close()
    return answer


def head(body: bytes, **more: str) -> str:
    fields = github_headers(body) | {name.replace("_", "-"): value for name, value in more.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /hooks/github HTTP/1.1\r\nHost: relay\r\n{lines}\r\n"


async def test_a_sender_that_asks_first_is_told_to_go_on(client: Client) -> None:
    body = github_push()
    asking = head(body, Expect="100-continue", Content_Length=str(len(body)))

    answer = await raw(client, asking, b"", body)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 ")
    assert b'"status":"queued"' in answer


async def test_another_expectation_is_417(audited: io.BytesIO, client: Client) -> None:
    answer = await raw(client, head(b"{}", Expect="coffee", Content_Length="2"))

    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b"the request expects something unknown" in audited.getvalue()


async def test_a_sender_that_leaves_early_is_told_of_in_the_audit(
    audited: io.BytesIO, client: Client, tmp_path: Path
) -> None:
    body = github_push()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(head(body, Content_Length=str(len(body)), Expect="100-continue").encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(body[:-1])
    writer.close()
    await writer.wait_closed()

    await until(lambda: b"delivery.rejected" in audited.getvalue())

    assert b"the body ended early" in audited.getvalue()
    assert deliveries(tmp_path) == []


async def test_chunks_are_read_like_any_body(client: Client) -> None:
    body = github_push()
    chunks = [body[start : start + 100] for start in range(0, len(body), 100)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks) + b"0\r\n\r\n"

    answer = await raw(client, head(body, Transfer_Encoding="chunked"), sent)

    assert answer.startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_413(client: Client, announced: bool) -> None:
    how = {"Content_Length": "4097"} if announced else {"Transfer_Encoding": "chunked"}
    sent = b"" if announced else b"1001\r\n" + b"x" * 4097

    answer = await raw(client, head(b"", **how), sent)

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/hooks/github", 405, "POST"),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("GET", "/", 404, None),
        ("POST", "/hooks/", 404, None),
        ("POST", "/hooks/github/x", 404, None),
        ("HEAD", "/healthz", 200, None),
    ],
)
async def test_paths_and_methods(
    client: Client, method: str, path: str, status: int, allow: str | None
) -> None:
    async with client.request(method, path) as response:
        assert (response.status, response.headers.get("Allow")) == (status, allow)


def shape(answer: bytes) -> tuple[bytes, dict[str, str], dict[str, Any]]:
    """Status line, headers and body of an answer; the time and the software do not count."""
    first, _, rest = answer.partition(b"\r\n")
    lines, _, body = rest.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))
    parsed = parsedate_to_datetime(headers.pop("Date"))
    assert abs((datetime.now(UTC) - parsed).total_seconds()) < 60
    headers.pop("Server", None)
    return first, headers, json.loads(body)


async def test_answers_are_what_aiohttp_would_send(client: Client) -> None:
    body = github_push()
    plain = head(body, Content_Length=str(len(body)))

    first = shape(await raw(client, plain, body))
    second = shape(await raw(client, plain, body))
    closing = shape(await raw(client, plain.replace("Host:", "Connection: close\r\nHost:"), body))
    old = shape(await raw(client, plain.replace("HTTP/1.1", "HTTP/1.0"), body))

    assert first[0] == b"HTTP/1.1 202 Accepted"
    assert second[0] == b"HTTP/1.1 200 OK"
    assert second[2] == {"status": "duplicate", "delivery": first[2]["delivery"]}
    # These two are aiohttp's own.
    assert closing == (second[0], second[1] | {"Connection": "close"}, second[2])
    assert old == (b"HTTP/1.0 200 OK", second[1], second[2])


async def test_requests_one_behind_the_other_are_answered_in_order(client: Client) -> None:
    bodies = [github_push(note=str(number)) for number in range(20)]
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    for number, body in enumerate(bodies):
        fields = github_headers(body, delivery=str(number)) | {"Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"POST /hooks/github HTTP/1.1\r\nHost: relay\r\n{lines}\r\n".encode() + body)

    answers = [(await reader.readuntil(b"}")).decode() for _ in bodies]

    assert all(answer.startswith("HTTP/1.1 202 Accepted\r\n") for answer in answers)
    told = [json.loads(answer.partition("\r\n\r\n")[2])["delivery"] for answer in answers]
    assert told == [f"delivery-{number + 1}" for number in range(20)]
    writer.close()


async def test_without_a_signature_no_body_is_read(
    audited: io.BytesIO, client: Client, tmp_path: Path
) -> None:
    plain = "POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

    answer = await raw(client, f"{plain}Content-Length: 4096\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" in answer
    [line] = rejections(audited)
    assert line["reason"] == "X-Hub-Signature-256 is missing: the webhook has no secret set"
    assert deliveries(tmp_path) == []


LARGE = 4 * FREE


async def test_bodies_over_the_budget_are_503_and_small_ones_are_taken(
    aiohttp_client: MakeClient, audited: io.BytesIO, tmp_path: Path
) -> None:
    bodies = ByteBudget(LARGE)
    body = github_push(note="x" * LARGE)
    async for client in build(aiohttp_client, tmp_path, max_body=2 * LARGE, bodies=bodies):
        # It sends all but the end, and keeps what it has sent in memory here.
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(head(body, Transfer_Encoding="chunked").encode())
        writer.write(b"%x\r\n" % len(body) + body[:-1])
        await until(lambda: bodies.held > LARGE - FREE)

        announced = await raw(client, head(body, Content_Length=str(len(body))))
        grown = await raw(
            client, head(body, Transfer_Encoding="chunked"), b"%x\r\n" % len(body) + body[:-1]
        )
        small = github_push()
        code, _ = await post(client, small, github_headers(small))
        writer.close()
        await until(lambda: bodies.held == 0)
        later, _ = await post(client, body, github_headers(body))

    for answer in (announced, grown):
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert answer.endswith(b'{"status":"rejected","error":"try again later"}')
    assert (code, later) == (202, 202)
    reasons = [line["reason"] for line in rejections(audited) if line["status"] == 503]
    assert len(reasons) == 2
    assert all(f" of {LARGE} bytes" in reason for reason in reasons)


async def test_the_budget_is_given_back_in_every_ending(
    aiohttp_client: MakeClient, tmp_path: Path
) -> None:
    bodies = ByteBudget(4 * LARGE)
    good, large = github_push(note="x" * LARGE), b"x" * (3 * LARGE)
    async for client in build(aiohttp_client, tmp_path, max_body=2 * LARGE, bodies=bodies):
        chunked = {"Transfer_Encoding": "chunked"}
        endings = [
            (head(good, Content_Length=str(len(good))), good, b"202"),
            (head(large, **chunked), b"%x\r\n" % len(large) + large, b"413"),
            (head(good, **chunked), b"%x\r\n" % len(good) + good, b"408"),
            (head(b"", Content_Length=str(len(good))), good, b"401"),
        ]
        for first, rest, status in endings:
            answer = await raw(client, first, rest)
            assert answer.split()[1] == status
            assert bodies.held == 0


@pytest.mark.parametrize(
    ("networks", "trusted", "forwarded", "status", "remote"),
    [
        (["127.0.0.0/8"], [], [], 202, ""),
        (["203.0.113.0/24"], [], [], 403, "127.0.0.1"),
        (["203.0.113.0/24"], [], ["203.0.113.9"], 403, "127.0.0.1"),
        (["203.0.113.0/24"], ["127.0.0.1"], ["203.0.113.9"], 202, ""),
        (["203.0.113.0/24"], ["127.0.0.1"], ["203.0.113.9, 198.51.100.7"], 403, "198.51.100.7"),
        (["203.0.113.0/24"], ["127.0.0.1"], ["203.0.113.9", "198.51.100.7"], 403, "198.51.100.7"),
        (["203.0.113.0/24"], ["127.0.0.1"], ["203.0.113.9, \xff"], 403, "127.0.0.1"),
    ],
)
async def test_networks_of_a_source(
    aiohttp_client: MakeClient,
    audited: io.BytesIO,
    tmp_path: Path,
    networks: list[str],
    trusted: list[str],
    forwarded: list[str],
    status: int,
    remote: str,
) -> None:
    body = github_push()
    lines = "".join(f"X-Forwarded-For: {value}\r\n" for value in forwarded)
    more = f"{lines}Forwarded: for=203.0.113.9\r\nHost:"
    asked = head(body, Content_Length=str(len(body))).replace("Host:", more)
    async for client in build(aiohttp_client, tmp_path, trusted=trusted, networks=networks):
        answer = await raw(client, asked, body)

    assert int(answer.split()[1]) == status
    if status == 403:
        assert answer.endswith(b'{"status":"rejected","error":"not from this address"}')
        [line] = rejections(audited)
        assert (line["remote"], line["source"]) == (remote, "github")
        assert deliveries(tmp_path) == []


async def test_a_source_over_its_rate_is_429(
    aiohttp_client: MakeClient, audited: io.BytesIO, tmp_path: Path
) -> None:
    body = github_push()
    async for client in build(aiohttp_client, tmp_path, rate="2/h"):
        for _ in range(5):
            assert (await post(client, body, github_headers(body, secret="guess")))[0] == 401
        codes = [(await post(client, body, github_headers(body)))[0] for _ in range(2)]
        async with client.post(
            "/hooks/github", data=body, headers=github_headers(body, delivery="third")
        ) as response:
            assert response.status == 429
            assert 1700 < int(response.headers["Retry-After"]) <= 1800
            assert await response.json() == {"status": "rejected", "error": "too many requests"}

    assert codes == [202, 202]
    line = rejections(audited)[-1]
    assert (line["status"], line["guid"]) == (429, "third")
    assert line["reason"] == "the source sends more than its rate"


PUSH = github_push()


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"[" * 4000, 400, ""),
        (b'{"a":' * 600 + b"1" + b"}" * 600, 400, ""),
        (b'{"ref": NaN}', 400, ""),
        (b'{"ref": ' + b"9" * 4000 + b"}", 400, ""),
        (b'{"ref": "\xff\xfe"}', 400, ""),
        (b'{"ref": "\\ud800"}', 400, ""),
        (PUSH + b"{}", 400, ""),
        (PUSH[:-1], 400, ""),
        # Of a key that comes twice the last one counts, as in the sender's own parsers.
        (PUSH[:-1] + b', "ref": "refs/heads/topic"}', 200, "does not match branches"),
        (PUSH[:-1] + b', "deep": ' + b"[" * 900 + b"]" * 900 + b"}", 202, ""),
        (PUSH[:-1] + b', "deep": ' + b"[" * 1500 + b"]" * 1500 + b"}", 400, ""),
    ],
)
async def test_bodies_made_to_do_harm(
    audited: io.BytesIO,
    client: Client,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    body: bytes,
    status: int,
    reason: str,
) -> None:
    code, answer = await post(client, body, github_headers(body, delivery="1"))

    assert code == status
    assert reason in answer.get("reason", "")
    assert len(deliveries(tmp_path)) == (status < 400)
    assert [(line["status"], line["guid"]) for line in rejections(audited)] == (
        [(400, "1")] if status == 400 else []
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("more", "sent", "status", "reason"),
    [
        ({"Content_Length": str(len(PUSH) + 1)}, PUSH, 408, "not complete after 0.3 s"),
        ({"Content_Length": "-1"}, PUSH, 400, "not an HTTP request that can be read"),
        ({"Content_Length": "1e3"}, PUSH, 400, "not an HTTP request that can be read"),
        (
            {"Content_Length": "5", "Transfer_Encoding": "chunked"},
            b"0\r\n\r\n",
            400,
            "not an HTTP request that can be read",
        ),
        ({"Transfer_Encoding": "chunked"}, b"zz\r\n", 400, ""),
        ({"Transfer_Encoding": "chunked"}, b"-5\r\n", 400, ""),
        ({"Transfer_Encoding": "gzip"}, PUSH, 400, ""),
        (
            {"Content_Encoding": "gzip", "Content_Length": "5"},
            b"\x1f\x8b\x08\0\0",
            415,
            "compressed",
        ),
        ({"Content_Encoding": "br", "Content_Length": "5"}, b"12345", 415, "compressed"),
    ],
)
async def test_bodies_that_are_not_as_announced(
    audited: io.BytesIO,
    client: Client,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    more: dict[str, str],
    sent: bytes,
    status: int,
    reason: str,
) -> None:
    answer = await raw(client, head(PUSH, **more), sent)

    assert int(answer.split()[1]) == status
    lines = rejections(audited)
    assert lines[0]["status"] == status
    assert reason in lines[0]["reason"]
    assert deliveries(tmp_path) == []
    assert capfd.readouterr().err == ""


async def test_what_stands_behind_the_announced_end_is_no_part_of_the_body(
    audited: io.BytesIO, client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await raw(client, head(PUSH, Content_Length=str(len(PUSH) - 1)), PUSH)

    # What is left over is no request; whether it is read together with the first one is chance.
    assert answer.split()[1] in (b"400", b"401")
    assert {line["reason"] for line in rejections(audited)} <= {
        "no configured secret made this signature",
        "not an HTTP request that can be read",
    }
    assert deliveries(tmp_path) == []
    assert capfd.readouterr().err == ""
