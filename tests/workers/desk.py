"""A crew with one target, and what is ordered there: deliveries, straight into the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from typing import Any

from aiohttp import web

from relay.events.event import Event, Push
from relay.events.ids import row_number
from relay.events.ref_change import ref_change, repository_key
from relay.ledger.intake import NewDelivery, StoredDelivery, store_delivery
from relay.ledger.ledger import Ledger
from relay.ledger.refs import RefStates
from relay.ledger.transaction import Row
from relay.queue.wakeups import Wakeups
from tests.harness import PATIENCE, Answer, Target, sha_of, until
from tests.workers.crew import Crew

YAML = """\
sources:
  github: {provider: github, secrets: [{env: TEST_GITHUB_SECRET}]}
targets:
  api:
    preset: http
    url: {env: TEST_API_URL}
    json: {sha: "{{ event.sha }}"}
    retry: {attempts: 2, base: 10ms}
KEYS
routes:
  - {name: api, repo: acme/api, on: push, deploy: [api]}
"""


class Desk:
    """A crew with one target, whose deploys are ordered here."""

    def __init__(self, crew: Crew, ledger: Ledger, wakeups: Wakeups, audited: io.BytesIO) -> None:
        self.crew = crew
        self.ledger = ledger
        self.wakeups = wakeups
        self._audited = audited
        self._states = RefStates()
        self._stands: dict[str, str] = {}

    def lines(self, *events: str, **fields: Any) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in self._audited.getvalue().splitlines()]
        return [line for line in told if line["event"] in events and fields.items() <= line.items()]

    async def store(self, event: Event, guid: str, *, wake: bool = True) -> StoredDelivery:
        """Keep a delivery as the receiver does."""
        new = NewDelivery(
            source="github",
            repository=repository_key(event, "github"),
            guid=guid,
            body_hash=hashlib.sha256(guid.encode()).digest(),
            received_at=time.time(),
            event=event,
            change=ref_change(event, keeps_id=True),
        )
        stored = await self.ledger.commit(lambda tx: store_delivery(tx, self._states, new))
        if wake and stored.status == "queued":
            self.wakeups.wake_deliveries(stored.id, stored.id)
        return stored

    async def send(
        self, after: str, *, before: str = "", branch: str = "main", wake: bool = True
    ) -> StoredDelivery:
        """Keep a push, whose commits are words; it begins where the branch stands."""
        ref = f"refs/heads/{branch}"
        start = before or self._stands.get(ref) or f"before {after}"
        self._stands[ref] = after
        event = Push("acme/api", ref, sha_of(start), sha_of(after))
        return await self.store(event, f"{branch} {start} {after}", wake=wake)

    async def push(self, after: str, **where: Any) -> str:
        """Keep a push, and return the id of its deploy."""
        await self.send(after, **where)
        await self.told("deploy.queued", sha=sha_of(after))
        return str(self.lines("deploy.queued", sha=sha_of(after))[0]["deploy"])

    async def told(self, *events: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """The audit lines, once there are so many."""
        await until(lambda: len(self.lines(*events, **fields)) >= count)
        return self.lines(*events, **fields)

    async def row(self, deploy: str) -> Row:
        """The deploy's row."""
        number = row_number("deploy", deploy)

        async def read(reader: Any) -> Any:
            return await reader.row("claim_facts", {"deploy": number})

        return await self.ledger.glance(read)

    async def reaches(self, deploy: str, status: str, waits: str | None = None) -> Row:
        """The deploy's row, once it has a status."""
        async with asyncio.timeout(PATIENCE):
            while True:
                row = await self.row(deploy)
                if row["status"] == status and waits in (None, row["waits"]):
                    return row
                await asyncio.sleep(0.01)


def answering(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


def shas(target: Target) -> list[str]:
    return [json.loads(body)["sha"] for *_, body in target.calls]
