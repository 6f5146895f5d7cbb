"""Size: bytes of the ledger for each delivery, by table.

Deliveries of 8 KB, each with one deploy and one call, go through the ledger's own transactions.
From their bytes follows how large the file is after a year with the default retention.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.payloads import SECRET, Pushes
from config.model import OnUncertain, Target
from config.settings import Settings
from relay.events.event import Push
from relay.events.ref_change import ref_change, repository_key
from relay.ledger.claims import claim
from relay.ledger.intake import NewDelivery, Payload, store_delivery
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.outcomes import Outcome, settle
from relay.ledger.queued_deliveries import WantedDeploy, route_delivery
from relay.ledger.refs import RefStates
from relay.ledger.sqlite import FILE, connect
from relay.ledger.zstd import pack
from relay.providers.github import GitHub

A_DAY = 10_000
EXCHANGE_BYTES = 700
"""A call with a small JSON answer, compressed."""

DAY = 86_400.0
TOGETHER = 60
"""Deliveries in flight."""


class _Policies:
    """One target."""

    policy = Target.model_validate({"preset": "http", "url": "http://platform.example/"})

    def target(self, name: str) -> Target | None:  # noqa: ARG002
        return self.policy

    def on_uncertain(self, name: str, *, is_newest: bool) -> OnUncertain:  # noqa: ARG002
        return "retry"

    def claim_seconds(self, name: str) -> float:  # noqa: ARG002
        return 60


async def _fill(folder: Path, number: int) -> None:
    ledger = Ledger(folder, full_sync=False, timeout=60)
    states, policies = RefStates(), _Policies()
    bodies = Pushes(8).bodies(1)
    provider = GitHub([SECRET])
    chance = random.Random(1)  # noqa: S311

    async def one(index: int) -> None:
        body = next(bodies)
        event = provider.parse({"X-GitHub-Event": "push"}, body)
        if not isinstance(event, Push):
            raise TypeError("the benchmark's payload is no push")
        repo = f"acme/service-{index % 200}"
        branch = "main" if index % 3 else f"feature/change-{index % 2_000}"
        event = Push(
            **{
                **{name: getattr(event, name) for name in event.__struct_fields__},
                "repo": repo,
                "repo_id": str(700_000_000 + index % 200),
                "ref": f"refs/heads/{branch}",
                "changed_at": 1_700_000_000.0 + index,
                "own_clock": True,
            }
        )
        new = NewDelivery(
            source="github",
            repository=repository_key(event, "github"),
            guid=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            body_hash=sha256(body).digest(),
            received_at=time.time(),
            event=event,
            change=ref_change(event, keeps_id=True),
            remote="192.0.2.1",
            config="0123456789ab",
            payload=Payload("zstd", pack(body)),
        )
        stored = await ledger.commit(lambda tx: store_delivery(tx, states, new))
        wanted = [WantedDeploy(target="web-production", route="production")]
        routed = await ledger.commit(lambda tx: route_delivery(tx, stored.id, wanted))
        if routed is None or not routed.deploys:
            return
        deploy = routed.deploys[0].id
        asked = await ledger.commit(lambda tx: claim(tx, deploy, str(index) * 4, policies))
        if asked is None or not asked.claim:
            return
        outcome = Outcome(
            deploy=deploy,
            claim=asked.claim,
            attempt=1,
            kind="succeeded",
            status="succeeded",
            ms=123.4,
            http=200,
            deployment_id="dep-d1abc2def3",
            exchange=chance.randbytes(EXCHANGE_BYTES),
        )
        await ledger.commit(lambda tx: settle(tx, outcome))

    for start in range(0, number, TOGETHER):
        await asyncio.gather(*[one(index) for index in range(start, min(number, start + TOGETHER))])
    await ledger.close()


def measure(number: int) -> dict[str, float]:
    """Return the bytes of each table, with its indexes, for each delivery."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        asyncio.run(_fill(folder, number))
        connection = connect(folder / FILE)
        rows = connection.execute(
            "SELECT coalesce(m.tbl_name, s.name) AS name, sum(s.pgsize) AS bytes FROM dbstat s "
            "LEFT JOIN sqlite_schema m ON m.name = s.name WHERE s.aggregate = TRUE GROUP BY 1"
        ).fetchall()
        [exchanges] = connection.execute("SELECT sum(length(exchange)) FROM attempt").fetchone()
        connection.close()
    tables = {row["name"]: row["bytes"] / number for row in rows if row["bytes"] / number >= 1}
    tables["exchange"] = (exchanges or 0) / number
    tables["attempt"] -= tables["exchange"]
    return dict(sorted(tables.items(), key=lambda item: -item[1]))


def after_a_year(tables: dict[str, float], settings: Settings) -> float:
    """Return the bytes of the file after a year of A_DAY deliveries a day."""
    days = {
        "payload": min(settings.keep_payloads / DAY, 365),
        "exchange": min(settings.keep_exchanges / DAY, 365),
    }
    kept = min(settings.keep_deliveries / DAY, 365)
    return sum(size * A_DAY * days.get(name, kept) for name, size in tables.items())


def run(number: int) -> dict[str, Any]:
    """Measure so many deliveries, and print it."""
    tables = measure(number)
    print(f"\nBytes of the ledger, {number:,} deliveries of 8 KB with one deploy")
    for name, size in tables.items():
        print(f"  {size:6.0f} bytes a delivery  {name}")
    print(f"  {sum(tables.values()):6.0f} bytes a delivery in all")
    gigabytes = after_a_year(tables, Settings()) / 1e9
    print(
        f"  after a year of {A_DAY} deliveries a day, by the default retention: {gigabytes:.1f} GB"
    )
    return {"deliveries": number, "bytes_each": tables, "gigabytes_after_a_year": gigabytes}
