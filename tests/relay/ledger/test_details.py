"""All that the ledger has of one delivery or deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay.attempt_record import AttemptRecord
from relay.ledger.details import Details, read_details
from relay.ledger.records import RecordKind
from relay.ledger.zstd import pack
from tests.relay.ledger.filled import AT, FilledLedger

SECOND = 1_000_000


@pytest.fixture
def filled(tmp_path: Path) -> FilledLedger:
    return FilledLedger(tmp_path)


def details(filled: FilledLedger, kind: RecordKind, id_: str) -> Details:
    read = filled.read(lambda reader: read_details(reader, kind, id_))
    assert read is not None
    return read


def moment(seconds: int) -> str:
    return f"2023-11-14T22:13:{20 + seconds}.000000Z"


def test_a_deploy_knows_what_is_live_beside_it(filled: FilledLedger) -> None:
    ref = filled.ref("acme/web", "refs/heads/main")
    deploys = []
    for state in (1, 2, 3):
        filled.state(ref, state)
        delivery = filled.delivery(ref=ref, state=state, sha=f"{state}" * 40)
        deploys.append(filled.deploy(delivery=delivery, state=state, pos=state))
    target = filled.target("production")
    filled.insert("live", target=target, ref=ref, deploy=deploys[2], pos=3)

    first = details(filled, "deploy", f"deploy-{deploys[0]}")
    last = details(filled, "deploy", f"deploy-{deploys[2]}")

    assert first.live is not None
    assert (first.live.deploy, first.live.states_back) == (f"deploy-{deploys[2]}", 2)
    assert first.live.sha == "3" * 40
    assert not first.record.live
    assert last.record.live
    assert last.live is not None
    assert last.live.states_back == 0


def test_attempts_have_what_was_exchanged(filled: FilledLedger) -> None:
    filled.delivery()
    filled.deploy(status="failed")
    kept = AttemptRecord(at="", attempt=1, outcome="", method="POST", host="a.example", status=500)
    exchange = pack(msgspec.json.encode(kept))
    row: dict[str, Any] = {"deploy": 1, "outcome": "retry", "reason": "HTTP 500"}
    filled.insert("attempt", number=1, called_at=AT, http=500, ms=1.5, exchange=exchange, **row)
    filled.insert("attempt", number=2, called_at=AT, exchange=b"damaged", **row)
    filled.insert("attempt", number=3, called_at=AT, exchange=None, **row)

    calls = details(filled, "deploy", "deploy-1").attempts

    told: dict[str, Any] = {"outcome": "retry", "reason": "HTTP 500", "at": moment(0)}
    assert calls == [
        msgspec.structs.replace(kept, attempt=1, ms=1.5, **told),
        AttemptRecord(attempt=2, **told),
        AttemptRecord(attempt=3, **told),
    ]


def test_a_delivery_that_led_to_nothing_says_why(filled: FilledLedger) -> None:
    reason = "branch x does not match"
    filled.delivery(status="ignored", reason=f"web: {reason}")
    filled.insert("route_reason", delivery=1, place=0, route="web", reason=reason)

    read = details(filled, "delivery", "delivery-1")

    assert [(one.route, one.reason) for one in read.reasons] == [("web", reason)]
    assert read.record.ended_at == ""


def test_a_delivery_ends_with_its_last_deploy_and_shows_its_worst(filled: FilledLedger) -> None:
    filled.delivery()
    filled.deploy(status="succeeded", ended_at=AT + SECOND)
    filled.deploy(status="failed", ended_at=AT + 3 * SECOND)

    done = details(filled, "delivery", "delivery-1").record
    filled.deploy(status="waiting")
    waits = details(filled, "delivery", "delivery-1").record

    assert (done.ended_at, done.outcome) == (moment(3), "failed")
    assert done.deploys == ["deploy-1", "deploy-2"]
    assert waits.ended_at == ""


@pytest.mark.parametrize("id_", ["delivery-9", "deploy-1", "1", "", "delivery-0", "delivery-1x"])
def test_what_the_ledger_does_not_have_is_none(filled: FilledLedger, id_: str) -> None:
    filled.delivery()

    assert filled.read(lambda reader: read_details(reader, "delivery", id_)) is None
