"""Stores webhooks in a ledger at a rate, until it is terminated: ``FOLDER RATE``."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
import time
from functools import partial
from pathlib import Path

from relay.events.event import Person, Push
from relay.events.ref_change import ref_change, repository_key
from relay.ledger.intake import NewDelivery, store_delivery
from relay.ledger.ledger import Ledger
from relay.ledger.refs import RefStates
from relay.ledger.transaction import Transaction


def _webhook(number: int) -> NewDelivery:
    after = secrets.token_hex(20)
    event = Push(
        repo=f"acme/web-{number % 200}",
        ref="refs/heads/main",
        before="",
        after=after,
        before_told=False,
        message="Have the button say what it does",
        author=Person("Dev", "dev@example.org", "dev"),
    )
    return NewDelivery(
        source="github",
        repository=repository_key(event, "github.example"),
        guid=after,
        body_hash=hashlib.sha256(after.encode()).digest(),
        received_at=time.time(),
        event=event,
        change=ref_change(event, keeps_id=True),
    )


async def _run(folder: Path, rate: float) -> None:
    ledger, states = Ledger(folder), RefStates()

    async def store(new: NewDelivery, tx: Transaction) -> None:
        await store_delivery(tx, states, new)

    number, begin = 0, time.monotonic()
    while True:
        await ledger.commit(partial(store, _webhook(number)))
        if not number:
            print("begun", flush=True)
        number += 1
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), float(sys.argv[2])))
