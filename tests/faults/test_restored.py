"""A ledger that is put back from a backup: nothing is silently called twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from relay.ledger.generation import redis_mark_key
from tests.harness import COMMAND, Relay, Target, sha_of, until


async def command(project: Relay, *arguments: str) -> str:
    """Run a command to its end; return its standard output."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=project.folder,
        env=dict(project.environ) | {"PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def readyz(project: Relay) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{project.url}/readyz") as response,
    ):
        return response.status, await response.json()


async def test_a_restored_ledger_accepts_webhooks_and_calls_nothing_until_it_is_accepted(
    relay: Relay, target: Target, store: Any
) -> None:
    audit = relay.folder / "audit.jsonl"
    environ = {**relay.environ, "RELAY_AUDIT_FILE": str(audit)}
    relay = Relay(relay.folder, environ, relay.processes)
    receiver, worker = await relay.serve(), await relay.work()
    pushed = await relay.push(after=sha_of("one"))
    assert pushed[0] == 202
    await worker.wait_for("deploy.succeeded")
    await command(relay, "ledger", "backup", "backup.db")
    await relay.push(before=sha_of("one"), after=sha_of("two"))
    await worker.wait_for("deploy.succeeded", count=2)
    await until(lambda: store.get(redis_mark_key("deploy-relay")))
    await receiver.stop()
    await worker.stop()

    await command(relay, "ledger", "restore", "backup.db")
    receiver, worker = await relay.serve(), await relay.work()
    assert len(receiver.find("ledger.behind") + worker.find("ledger.behind")) == 1
    status, report = await readyz(relay)
    assert (status, report["status"]) == (200, "degraded")
    assert "deploy-relay ledger accept" in report["ledger"]
    status, answer = await relay.push(before=sha_of("two"), after=sha_of("three"))
    assert (status, answer["delivery"]) == (202, "delivery-3")
    # What a worker takes now is given back: it knows that it may not route.
    await until(lambda: store.llen("rq:queue:deploy-relay") == 0)
    assert len(target.calls) == 2

    text = await command(relay, "ledger", "accept")
    assert "deliveries that the ledger lacks: 1\n  delivery-2" in text
    [succeeded] = await worker.wait_for("deploy.succeeded", delivery="delivery-3")
    assert succeeded["deploy"] == "deploy-3"
    assert len(target.calls) == 3
    status, report = await readyz(relay)
    assert report["ledger"] == "ok"
    events = [json.loads(line)["event"] for line in _lines(audit)]
    assert events.count("ledger.behind") == events.count("ledger.accepted") == 1
    for process in (receiver, worker):
        await process.stop()


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()
