"""What is kept of a body: redacted, compressed, in the row or as a file beside the ledger."""

from __future__ import annotations

import io
import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import zstandard

from relay import audit
from relay.ledger.payload_files import FOLDER, ORPHAN_SECONDS, PayloadFiles
from relay.receive.payload import LARGE, MOST_IN_ROW
from tests.harness import GITHUB_SECRET, github_headers
from tests.receive.desk import Desk, locked, route, rows, running
from tests.receive.test_handler import Server
from tests.receive.webhooks import push

FORM = "application/x-www-form-urlencoded"


async def send(make: Any, desk: Desk, body: bytes, guid: str = "1", **headers: str) -> int:
    client = await make(Server(desk.receiver))
    sent = github_headers(body, delivery=guid) | headers
    async with client.post("/hooks/github", data=io.BytesIO(body), headers=sent) as response:
        return int(response.status)


def kept(folder: Path) -> list[tuple[str, bytes]]:
    return [(row["codec"], row["body"]) for row in rows(folder, "SELECT * FROM payload")]


def unpacked(data: bytes) -> Any:
    return json.loads(zstandard.ZstdDecompressor().decompress(data))


async def test_a_payload_stands_beside_its_delivery_without_secrets(
    aiohttp_client: Any, tmp_path: Path
) -> None:
    audit.exchange_secrets({GITHUB_SECRET})
    body = push("a", "b", secret="of Gogs", text=f"it is {GITHUB_SECRET}", url="https://u:p@x/y")
    async with running(tmp_path, [route()]) as desk:
        assert await send(aiohttp_client, desk, body) == 202

    [(codec, data)] = kept(tmp_path)
    assert codec == "zstd"
    changed = {"secret": "****", "text": "it is ****", "url": "https://****@x/y"}
    assert unpacked(data) == json.loads(body) | changed
    file = (tmp_path / "ledger.db").read_bytes() + (tmp_path / "ledger.db-wal").read_bytes()
    assert b"of Gogs" not in file
    assert GITHUB_SECRET.encode() not in file


async def test_a_form_is_kept_as_its_json(aiohttp_client: Any, tmp_path: Path) -> None:
    body = push("a", "b")
    form = urlencode({"payload": body.decode()}).encode()
    async with running(tmp_path, [route()]) as desk:
        assert await send(aiohttp_client, desk, form, **{"Content-Type": FORM}) == 202

    [(_, data)] = kept(tmp_path)
    assert unpacked(data) == json.loads(body)


async def test_what_cannot_be_looked_through_is_not_kept_and_says_why(
    aiohttp_client: Any, tmp_path: Path
) -> None:
    audit.exchange_secrets({GITHUB_SECRET})
    deep = json.dumps(GITHUB_SECRET).encode()
    body = push("a", "b")[:-1] + b', "deep": ' + b"[" * 900 + deep + b"]" * 900 + b"}"
    async with running(tmp_path, [route()]) as desk:
        assert await send(aiohttp_client, desk, body) == 202

    assert kept(tmp_path) == [("none", b"nested too deeply")]


def large(note: str = "") -> bytes:
    """Return a body that stays over MOST_IN_ROW when it is compressed."""
    return push("a", "b", noise=secrets.token_hex(MOST_IN_ROW + LARGE), note=note)


async def test_a_large_one_is_a_file_of_this_user(aiohttp_client: Any, tmp_path: Path) -> None:
    body = large()
    async with running(tmp_path, [route()], max_body=2 * len(body)) as desk:
        assert await send(aiohttp_client, desk, body) == 202

    [(codec, name)] = kept(tmp_path)
    file = tmp_path / FOLDER / name.decode()
    assert codec == "file"
    assert unpacked(file.read_bytes()) == json.loads(body)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_the_file_of_what_is_not_stored_is_removed(
    aiohttp_client: Any, tmp_path: Path
) -> None:
    body = large()
    async with running(tmp_path, [route()], max_body=2 * len(body), patience=0.2) as desk:
        async with locked(tmp_path):
            assert await send(aiohttp_client, desk, body) == 503
        assert await send(aiohttp_client, desk, body) == 202
        assert await send(aiohttp_client, desk, body) == 200

    [(_, name)] = kept(tmp_path)
    assert os.listdir(tmp_path / FOLDER) == [name.decode()]


async def test_a_file_that_cannot_be_written_is_no_reason_to_refuse(
    aiohttp_client: Any, tmp_path: Path
) -> None:
    (tmp_path / FOLDER).write_bytes(b"in the way")
    body = large()
    async with running(tmp_path, [route()], max_body=2 * len(body)) as desk:
        assert await send(aiohttp_client, desk, body) == 202

    assert kept(tmp_path) == [("none", b"its file could not be written: File exists")]


async def test_small_bodies_do_not_wait_for_a_large_one(
    aiohttp_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.receive.payload.PATIENCE", 0.05)
    body = push("a", "b", noise="x" * LARGE)
    async with running(tmp_path, [route()], max_body=2 * len(body)) as desk:
        # Another large body occupies the thread.
        event = threading.Event()
        desk.receiver.payloads._thread.submit(event.wait)
        assert await send(aiohttp_client, desk, body) == 202
        assert await send(aiohttp_client, desk, push("b", "c", 60), "2") == 202
        event.set()

    assert kept(tmp_path)[0] == ("none", b"too many large bodies came at once")
    assert kept(tmp_path)[1][0] == "zstd"


def test_orphans_are_removed_once_they_are_old(tmp_path: Path) -> None:
    files = PayloadFiles(tmp_path)
    assert files.remove_orphans(frozenset()) == 0
    named, orphan = files.write(b"a"), files.write(b"b")
    now = (tmp_path / FOLDER / orphan).stat().st_mtime

    assert files.remove_orphans(frozenset([named]), now + ORPHAN_SECONDS - 1) == 0
    assert files.remove_orphans(frozenset([named]), now + ORPHAN_SECONDS + 1) == 1
    assert os.listdir(tmp_path / FOLDER) == [named]
    assert files.read(named) == b"a"
