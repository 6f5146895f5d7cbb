"""Who gets in: tokens, sessions, forgery, addresses, and the headers of every answer."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3

import pytest
from yarl import URL

from config.settings import Settings
from relay import tokens
from relay.console.sessions import COOKIE, TRIES
from relay.ledger.sqlite import FILE
from tests.console.desk import Desk, opened
from tests.harness import PATIENCE

HEALTH = "/api/v1/health"


async def test_token_gets_in(desk: Desk) -> None:
    answer = await desk.ask("GET", HEALTH, "viewer")

    assert answer.status == 200
    assert answer.body["status"] == "ok"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "sent", ["", "Bearer drt_0_x", "Basic YTpi", "Bearer", "Bearer " + "x" * 99]
)
async def test_without_a_token_nobody_gets_in(desk: Desk, sent: str) -> None:
    answer = await desk.ask("GET", HEALTH, headers={"Authorization": sent} if sent else None)

    assert answer.status == 401
    assert answer.body["error"]["code"] == "unauthenticated"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    [refused] = desk.audit("console.refused")
    assert (refused["status"], refused["remote"], refused["path"]) == (401, "127.0.0.1", HEALTH)
    assert "x" * 9 not in str(refused)


async def test_wrong_secret_and_revoked_token(desk: Desk) -> None:
    text = desk.tokens["viewer"]
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert (await desk.ask("GET", HEALTH, token=wrong)).status == 401
    assert (await desk.log_in("viewer")).status == 303
    assert (await desk.ask("GET", HEALTH)).status == 200

    await desk.ledger.commit(lambda tx: tokens.revoke(tx, text.split("_")[1], "test"))

    assert (await desk.ask("GET", HEALTH, "viewer")).status == 401
    answer = await desk.ask("GET", HEALTH)
    assert (answer.status, answer.body["error"]["message"]) == (
        401,
        "the session has ended: log in again",
    )


async def test_login_keeps_only_hashes(desk: Desk) -> None:
    answer = await desk.log_in("operator")

    cookie = answer.cookies[COOKIE]
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert (cookie["secure"], cookie["max-age"]) == ("", "43200")
    [session] = desk.sessions()
    kept = b"".join(path.read_bytes() for path in desk.ledger.folder.glob("ledger.db*"))
    assert session["hash"].encode() in kept
    assert cookie.value.encode() not in kept
    assert desk.tokens["operator"][17:].encode() not in kept
    seconds = (session["expires_at"] - desk.ledger.clock()) / 1_000_000
    assert 43_100 < seconds <= 43_200


async def test_cookie_is_secure_behind_a_proxy_that_is_trusted(desk: Desk) -> None:
    answer = await desk.log_in("viewer", headers={"X-Forwarded-Proto": "https"})

    assert answer.cookies[COOKIE]["secure"] is True


async def test_nobody_else_says_that_it_is_secure(settings: Settings, audited: io.BytesIO) -> None:
    alone = settings.model_copy(update={"trusted_proxies": ()})
    async with opened(alone, audited) as desk:
        answer = await desk.log_in("viewer", headers={"X-Forwarded-Proto": "https"})

    assert answer.cookies[COOKIE]["secure"] == ""


async def test_logout_needs_the_sessions_token(desk: Desk) -> None:
    await desk.log_in("viewer")

    for headers, form in (
        ({}, {}),
        ({"X-CSRF-Token": "wrong"}, {}),
        ({}, {"csrf": "wrong"}),
        ({"X-CSRF-Token": "\u00e9"}, {}),
    ):
        answer = await desk.ask("POST", "/logout", headers=headers, data=form)
        assert answer.status == 403
        assert "X-CSRF-Token" in answer.body
    assert len(desk.audit("console.refused")) == 4
    assert desk.audit("console.refused")[0]["by"] == "a-viewer"

    csrf = desk.csrf()
    answer = await desk.ask("POST", "/logout", data={"csrf": csrf})
    assert (answer.status, answer.headers["Location"]) == (303, "/login")
    assert desk.sessions() == []


async def test_other_sites_post_nothing(desk: Desk) -> None:
    answer = await desk.log_in("viewer", headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status == 403
    assert COOKIE not in answer.cookies


async def test_logins_are_bounded_for_each_address(desk: Desk) -> None:
    for _ in range(TRIES):
        answer = await desk.ask(
            "POST", "/login", data={"token": "no"}, headers={"X-Forwarded-For": "192.0.2.1"}
        )
        assert answer.status == 401

    answer = await desk.log_in("viewer", headers={"X-Forwarded-For": "192.0.2.1"})
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert desk.audit("console.refused")[-1]["remote"] == "192.0.2.1"
    other = await desk.log_in("viewer", headers={"X-Forwarded-For": "192.0.2.2"})
    assert other.status == 303


async def test_pages_send_people_to_the_login(desk: Desk) -> None:
    answer = await desk.ask("GET", "/no/such/page")
    assert answer.status == 404
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    answer = await desk.ask("GET", "/api/v1/nothing")
    assert (answer.status, answer.body["error"]["code"]) == (404, "not_found")
    answer = await desk.ask("DELETE", HEALTH, "operator")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


async def test_session_ends(desk: Desk) -> None:
    await desk.log_in("viewer")
    with sqlite3.connect(desk.ledger.folder / FILE) as connection:
        connection.execute("UPDATE session SET expires_at = ?", (desk.ledger.clock() - 1,))

    assert (await desk.ask("GET", HEALTH)).status == 401
    # The next login deletes what is over.
    await desk.log_in("viewer")
    assert len(desk.sessions()) == 1


async def test_process_answers_without_a_token(desk: Desk) -> None:
    assert (await desk.ask("GET", "/healthz")).body == {"status": "ok"}


async def test_connections_are_bounded_and_quote_nothing(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    """What cannot be read is neither repeated nor logged, as it may hold a token."""
    secret = b"drt_0_secret\x00"
    status, body = await raw(desk.url, b"GET / HTTP/1.1\r\nAuthorization: " + secret + b"\r\n\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")
    assert b"drt_" not in body
    assert "drt_" not in capfd.readouterr().err

    status, body = await raw(desk.url, b"GET / HTTP/1.1\r\n")
    assert (status, json.loads(body)["error"]) == (
        408,
        {"code": "headers_too_slow", "message": "no complete headers after 1 s"},
    )


async def raw(url: str, sent: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(URL(url).host, URL(url).port)
    writer.write(sent)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_page_that_is_open_gets_nothing_more_of_a_revoked_token(desk: Desk) -> None:
    await desk.log_in("viewer")
    token = desk.tokens["viewer"].split("_")[1]
    async with desk.http.get("/live?kind=delivery") as stream, asyncio.timeout(PATIENCE):
        while b"missed" not in await stream.content.readline():
            pass
        await desk.ledger.commit(lambda tx: tokens.revoke(tx, token, "test"))
        await desk.rows.push("a")

        rest = await stream.content.read()

    assert b"row" not in rest
