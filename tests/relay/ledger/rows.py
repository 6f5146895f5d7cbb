"""Rows for tests: deliveries, deploys, calls, made by the transactions that make them for real."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

from config.model import OnUncertain, Target
from relay.events.event import Push
from relay.events.ref_change import ref_change, repository_key
from relay.ledger.claims import Asked, claim
from relay.ledger.intake import NewDelivery, StoredDelivery, store_delivery
from relay.ledger.ledger import Ledger
from relay.ledger.queued_deliveries import Routed, WantedDeploy, route_delivery
from relay.ledger.refs import RefStates
from relay.ledger.sqlite import FILE
from tests.harness import sha_of

RECEIVED_AT = 1_700_000_000.0


class Policies:
    """One kind of target, by any name."""

    _target = Target.model_validate({"preset": "http", "url": "http://platform.example/"})

    def target(self, name: str) -> Target | None:  # noqa: ARG002
        return self._target

    def on_uncertain(self, name: str, *, is_newest: bool) -> OnUncertain:  # noqa: ARG002
        return "retry"

    def claim_seconds(self, name: str) -> float:  # noqa: ARG002
        return 30


async def add_delivery(ledger: Ledger, word: str, ref: str = "main") -> int:
    """Store a push to a branch; return its number."""
    event = Push(
        repo="acme/web", ref=f"refs/heads/{ref}", before="", after=sha_of(word), before_told=False
    )
    new = NewDelivery(
        source="github",
        repository=repository_key(event, "github"),
        guid=word,
        body_hash=hashlib.sha256(word.encode()).digest(),
        received_at=RECEIVED_AT,
        event=event,
        change=ref_change(event, keeps_id=True),
    )
    stored: StoredDelivery = await ledger.commit(lambda tx: store_delivery(tx, RefStates(), new))
    assert stored.verdict == "new"
    return stored.id


async def add_deploy(ledger: Ledger, word: str, ref: str = "main") -> int:
    """Store a push and route it to one target; return the deploy's number."""
    return await route(ledger, await add_delivery(ledger, word, ref))


async def route(ledger: Ledger, delivery: int) -> int:
    """Route a delivery to one target; return the deploy's number, or 0 where it is not routed."""
    wanted = [WantedDeploy(target="production", route="production")]
    routed: Routed | None = await ledger.commit(lambda tx: route_delivery(tx, delivery, wanted))
    return routed.deploys[0].id if routed is not None else 0


async def ask(ledger: Ledger, deploy: int, name: str = "claim") -> Asked | None:
    """Ask whether a deploy may be called."""
    return await ledger.commit(lambda tx: claim(tx, deploy, name, Policies()))


def sql(folder: Path, text: str, *params: Any) -> list[Any]:
    """Run a statement beside the ledger, as the program sqlite3 would."""
    with sqlite3.connect(folder / FILE) as connection:
        return connection.execute(text, params).fetchall()


def statuses(folder: Path) -> dict[int, str]:
    """The status of each deploy."""
    return dict(sql(folder, "SELECT id, status FROM deploy"))
