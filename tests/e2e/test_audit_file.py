"""Receiver, worker and commands write one audit file, and its chain holds."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from relay.audit_reading import prove
from relay.chain import Finding
from tests.harness import Relay, Target, sha_of


async def test_all_processes_write_one_chain(relay: Relay, target: Target) -> None:
    path = relay.folder / "audit" / "audit.jsonl"
    relay.environ = {
        **relay.environ,
        "RELAY_AUDIT_FILE": str(path),
        "RELAY_AUDIT_KEY": "very-secret-key",
        "RELAY_AUDIT_FSYNC": "always",
    }
    await relay.serve()
    await relay.work()
    for number in range(5):
        status, _ = await relay.push(after=sha_of(str(number)))
        assert status == 202
    await relay.settle()
    told = path.read_bytes()
    assert b"very-secret" not in told

    findings: list[Finding] = []
    proof = await asyncio.to_thread(
        prove, path, b"very-secret-key", findings.append, lambda _: None
    )

    assert findings == []
    assert proof.signed
    events = [json.loads(line)["event"] for line in told.splitlines()]
    assert events.count("delivery.received") == 5
    # All are states of one branch, and only the newest of those that wait is called.
    assert events.count("deploy.succeeded") + events.count("deploy.superseded") == 5
    assert {"receiver.started", "worker.started"} <= set(events)


async def test_a_receiver_that_cannot_write_its_audit_file_accepts_nothing(relay: Relay) -> None:
    (relay.folder / "audit").mkdir()
    relay.environ = {**relay.environ, "RELAY_AUDIT_FILE": str(relay.folder / "audit" / "a.jsonl")}
    receiver = await relay.serve()
    assert await readyz(relay) == (200, "ready", "ok")
    assert (await relay.push(note="1"))[0] == 202
    # What the receiver has open stays open; a new file cannot be made.
    for file in (relay.folder / "audit").iterdir():
        file.unlink()
    (relay.folder / "audit").rmdir()
    (relay.folder / "audit").write_text("in the way")

    status, answer = await relay.push(note="2")

    assert status == 503, answer
    assert await readyz(relay) == (503, "not ready", "it takes no lines")
    assert receiver.process.returncode is None

    (relay.folder / "audit").unlink()
    (relay.folder / "audit").mkdir()
    assert await readyz(relay) == (200, "ready", "ok")
    assert (await relay.push(note="3"))[0] == 202


async def readyz(relay: Relay) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{relay.url}/readyz") as response,
    ):
        answer = await response.json()
        return response.status, answer["status"], answer["audit"]
