"""Retention: what is old goes, in slices; what is open, live or the newest state of a ref stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from relay.ledger import retention
from relay.ledger.ledger import Ledger
from relay.ledger.payload_files import PayloadFiles
from relay.ledger.retention import Cleaned, Keep, clean
from tests.relay.ledger.filled import AT, FilledLedger

DAY = 86_400.0
NOW = AT / 1e6
YEAR = Keep(
    deliveries=365 * DAY,
    payloads=30 * DAY,
    exchanges=30 * DAY,
    actions=365 * DAY,
    notices=30 * DAY,
    refusals=90 * DAY,
)


def days_ago(days: float) -> int:
    return AT - round(days * DAY * 1e6)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledLedger]:
    ledger = FilledLedger(tmp_path)
    yield ledger
    ledger.close()


def run_round(filled: FilledLedger, keep: Keep = YEAR) -> Cleaned:
    async def run() -> Cleaned:
        ledger = Ledger(filled.folder, full_sync=False)
        try:
            return await clean(ledger, keep, NOW)
        finally:
            await ledger.close()

    return asyncio.run(run())


def numbers(filled: FilledLedger, table: str) -> list[int]:
    return [row[0] for row in filled.sql.execute(f"SELECT id FROM {table} ORDER BY id")]  # noqa: S608


def count(filled: FilledLedger, table: str) -> int:
    return int(filled.sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def test_an_old_delivery_goes_with_all_that_belongs_to_it(filled: FilledLedger) -> None:
    old = filled.delivery(received_at=days_ago(366))
    young = filled.delivery(received_at=days_ago(364), message="Change a page")
    for delivery in (old, young):
        deploy = filled.deploy(delivery=delivery)
        filled.insert("attempt", deploy=deploy, number=1, called_at=1, outcome="", reason="")
        filled.insert("payload", delivery=delivery, codec="zstd", body=b"x")
        filled.insert("route_reason", delivery=delivery, place=0, route="web", reason="no")

    cleaned = run_round(filled)

    assert (cleaned.deliveries, cleaned.is_done) == (1, True)
    assert numbers(filled, "delivery") == [young]
    tables = ("deploy", "attempt", "route_reason")
    assert [count(filled, table) for table in tables] == [1, 1, 1]
    words = "SELECT rowid FROM delivery_text WHERE delivery_text MATCH ?"
    assert [row[0] for row in filled.sql.execute(words, ("page",))] == [young]
    filled.sql.execute("INSERT INTO delivery_text (delivery_text) VALUES ('integrity-check')")


@pytest.mark.parametrize("status", ["waiting", "calling", "accepted"])
def test_what_is_open_stays(filled: FilledLedger, status: str) -> None:
    delivery = filled.delivery(received_at=days_ago(900))
    filled.deploy(delivery=delivery)
    filled.deploy(delivery=delivery, status=status, target="staging")
    filled.delivery(received_at=days_ago(900), status="queued")

    assert run_round(filled).deliveries == 0
    assert count(filled, "delivery") == 2


def test_what_is_live_stays(filled: FilledLedger) -> None:
    live = filled.delivery(received_at=days_ago(900))
    old = filled.delivery(received_at=days_ago(901))
    deploy = filled.deploy(delivery=live)
    filled.deploy(delivery=old)
    ref = filled.ref("acme/web", "refs/heads/main")
    filled.insert("live", target=filled.target("production"), ref=ref, deploy=deploy, pos=1)

    assert run_round(filled).deliveries == 1
    assert numbers(filled, "delivery") == [live]


def test_payloads_and_exchanges_go_before_their_rows(filled: FilledLedger) -> None:
    files = PayloadFiles(filled.folder)
    names = [files.write(b"old"), files.write(b"young")]
    for days, name in zip((31, 29), names, strict=True):
        delivery = filled.delivery(received_at=days_ago(days))
        filled.insert("payload", delivery=delivery, codec="file", body=name.encode())
        deploy = filled.deploy(delivery=delivery, created_at=days_ago(days))
        filled.insert(
            "attempt",
            deploy=deploy,
            number=1,
            called_at=1,
            outcome="",
            reason="",
            exchange=b"x",
        )

    cleaned = run_round(filled)

    assert (cleaned.deliveries, cleaned.payloads, cleaned.exchanges) == (0, 1, 1)
    assert [path.name for path in (filled.folder / "payloads").iterdir()] == [names[1]]
    assert (cleaned.files, count(filled, "payload")) == (1, 1)
    exchanges = filled.sql.execute("SELECT exchange FROM attempt ORDER BY deploy")
    assert [row[0] for row in exchanges] == [None, b"x"]


def test_each_table_has_its_time(filled: FilledLedger) -> None:
    for days in (400, 40, 1):
        columns = {"by": "ann", "what": "pause", "subject": "web", "note": ""}
        filled.insert("action", at=days_ago(days), **columns)
        for status, next_at in (("sent", None), ("waiting", AT)):
            filled.insert(
                "notice",
                notifier="chat",
                kind="failure",
                deploy=1,
                created_at=days_ago(days),
                body="",
                status=status,
                next_at=next_at,
            )
        hour = days_ago(days) // 3_600_000_000
        told = {"count": 1, "last_at": 1, "last_reason": "", "last_remote": ""}
        filled.insert("refusal", hour=hour, source="git", status=401, **told)
    token = {"name": "ann", "role": "viewer", "sha256": "", "created_at": AT}
    filled.insert("token", id="ann", **token)
    for key, expires_at in (("old", AT - 1), ("open", AT + 1)):
        filled.insert("session", hash=key, token="ann", form_key="", expires_at=expires_at)
    filled.insert("rate_call", subject="web", at=days_ago(1_001), call="a")
    filled.insert("rate_call", subject="web", at=days_ago(998), call="b")

    cleaned = run_round(filled)

    deleted = (cleaned.actions, cleaned.notices, cleaned.refusals, cleaned.sessions)
    assert deleted == (1, 2, 1, 1)
    assert cleaned.rate_calls == 1
    left = [count(filled, table) for table in ("action", "notice", "refusal", "session")]
    assert left == [2, 4, 2, 1]


def test_a_quiet_ref_keeps_its_newest_state_and_its_highest_number(filled: FilledLedger) -> None:
    ref = filled.ref("acme/web", "refs/heads/main")
    for number in range(1, 6):
        filled.state(ref, number)
    filled.sql.execute("UPDATE ref_state SET pos = 99 WHERE no = 3")

    assert run_round(filled).states == 3
    left = filled.sql.execute("SELECT no FROM ref_state ORDER BY no").fetchall()
    assert [row[0] for row in left] == [3, 5]
    [version] = filled.sql.execute("SELECT version FROM ref").fetchone()
    assert version, "processes that remember the states have to read them anew"


def test_a_round_is_bounded(filled: FilledLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_OF_A_ROUND", 60)
    for _ in range(70):
        filled.delivery(received_at=days_ago(400))

    first, second = run_round(filled), run_round(filled)

    assert (first.deliveries, first.is_done) == (60, False)
    assert (second.deliveries, second.is_done) == (10, True)


def test_a_ledger_over_its_bound_deletes_the_oldest_deliveries(filled: FilledLedger) -> None:
    for number in range(400):
        delivery = filled.delivery(received_at=days_ago(10) + number, message="x" * 4_000)
        filled.deploy(delivery=delivery)
    live = filled.deploy(delivery=1, target="staging")
    ref = filled.ref("acme/web", "refs/heads/main")
    filled.insert("live", target=filled.target("staging"), ref=ref, deploy=live, pos=1)
    bound = run_round(filled).bytes_after // 2

    cleaned = run_round(filled, msgspec.structs.replace(YEAR, max_bytes=bound))

    assert cleaned.early == cleaned.deliveries > 150
    assert cleaned.bytes_after <= bound * retention.ROOM
    left = numbers(filled, "delivery")
    assert left[0] == 1, "what is live stays"
    assert left[1:] == list(range(402 - len(left), 401)), "the newest stay"
