"""A receiver for tests: on a real ledger, with a waker that notes what it is told."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from config.model import Route, Source
from relay import audit
from relay.http.body import BodyReader
from relay.http.client_address import ClientAddresses
from relay.http.limits import ByteBudget
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.lock import WriteLock
from relay.ledger.payload_files import PayloadFiles
from relay.ledger.sqlite import FILE
from relay.receive.handler import Receiver
from relay.receive.intake import Intake
from relay.receive.payload import PayloadPacker
from relay.receive.readiness import Readiness
from relay.receive.redact_payload import PayloadRedactor
from relay.receive.refusals import Refusals
from relay.receive.sources import ready_sources
from relay.routing import Router
from tests.harness import GITHUB_SECRET

CONFIG = "c0ffee"


@dataclass
class NotingWaker:
    """Notes whom it is told to wake."""

    woken: list[tuple[int, int]] = field(default_factory=list)
    answer: str = "ok"
    """What it tells of Redis."""

    async def ask(self) -> str:
        """Return whether Redis takes jobs."""
        return self.answer

    def wake_deliveries(self, first: int, last: int) -> None:
        """See relay.receive.intake.DeliveryWaker."""
        self.woken.append((first, last))


@dataclass
class Desk:
    """A receiver, and what it works with."""

    receiver: Receiver
    ledger: Ledger
    waker: NotingWaker


def route(**keys: Any) -> Route:
    """Return a route of pushes to main of acme/web."""
    return Route.model_validate(
        {"name": "web", "repo": "acme/web", "on": "push", "branches": "main", "deploy": "t", **keys}
    )


def source(**keys: Any) -> Source:
    """Return a source whose webhooks tests.harness.GITHUB_SECRET signs."""
    made = Source.model_validate({"provider": "github", "secrets": [{"env": "X"}], **keys})
    for ref in made.secrets:
        ref.keep(SecretStr(GITHUB_SECRET))
    return made


@asynccontextmanager
async def running(
    folder: Path,
    routes: Sequence[Route],
    *,
    sources: dict[str, Source] | None = None,
    max_body: int = 4096,
    bodies: ByteBudget | None = None,
    trusted: Sequence[str] = (),
    patience: float = 3,
    **keys: Any,
) -> AsyncIterator[Desk]:
    """Yield a receiver whose one source, ``github``, has ``keys``, or that has ``sources``."""
    prepare(folder)
    ledger = Ledger(folder, timeout=patience)
    waker = NotingWaker()
    payloads = PayloadPacker(PayloadRedactor(audit.redactor()), PayloadFiles(folder))
    intake, refusals = Intake(ledger, waker), Refusals(ledger)
    refusals.start()
    receiver = Receiver(
        sources=ready_sources(sources or {"github": source(repos=["acme/*"], **keys)}),
        router=Router(routes),
        intake=intake,
        payloads=payloads,
        readiness=Readiness(ledger, intake, waker.ask),
        refusals=refusals,
        bodies=BodyReader(max_body, 0.3, bodies or ByteBudget(max_body)),
        clients=ClientAddresses([ip_network(text) for text in trusted]),
        config=CONFIG,
    )
    try:
        yield Desk(receiver, ledger, waker)
    finally:
        await intake.stop()
        await refusals.stop()
        payloads.close()
        await ledger.close()


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[None]:
    """Keep the lock of a ledger while the block lasts, as another process would."""
    lock = WriteLock(folder)
    await lock.take(10)
    try:
        yield
    finally:
        lock.release()
        lock.close()


def rows(folder: Path, query: str, *params: Any) -> list[dict[str, Any]]:
    """Return the rows of a query to the ledger of a folder."""
    connection = sqlite3.connect(f"{(folder / FILE).as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(query, params)]
    finally:
        connection.close()


def deliveries(folder: Path) -> list[dict[str, Any]]:
    """Return all deliveries of a ledger, in their order."""
    return rows(folder, "SELECT * FROM delivery ORDER BY id")
