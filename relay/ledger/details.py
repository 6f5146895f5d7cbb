"""All that the ledger has of one delivery or deploy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from relay.attempt_record import AttemptRecord
from relay.events.ids import public_id, row_number
from relay.ledger.actions import consequence_of
from relay.ledger.records import (
    Record,
    RecordKind,
    delivery_record,
    iso,
    read_deploy,
    read_records,
)
from relay.ledger.rows import microseconds
from relay.ledger.transaction import Reader, Row
from relay.ledger.zstd import unpack

MOST_EXCHANGE = 262_144
"""Bytes that are unpacked of what is kept of one attempt; ours are shorter."""


class ActionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a person did."""

    at: str
    by: str
    what: str
    """replay, cancel, approve, dismiss, pause, resume or accept."""
    subject: str
    """The id of a delivery or deploy, or the name of a target."""
    note: str = ""


class RouteReasonRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one route said to a delivery that led to nothing."""

    route: str
    reason: str


class LiveRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is live on the target and ref of a deploy."""

    deploy: str
    sha: str
    at: str
    """When its deploy ended."""
    states_back: int
    """How many newer states of the ref were to be deployed there, its end included."""


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """A record and all that belongs to it. It holds no secret and no URL."""

    record: Record
    event: Mapping[str, Any]
    """What the webhook said; of its files only their number."""
    attempts: Sequence[AttemptRecord] = ()
    """Of a deploy: its calls, the newest last."""
    actions: Sequence[ActionRecord] = ()
    """What people did to it, the newest last."""
    reasons: Sequence[RouteReasonRecord] = ()
    """Of a delivery that was ignored: what each route said."""
    deploys: Sequence[Record] = ()
    """Of a delivery, the oldest first."""
    live: LiveRecord | None = None
    """Of a deploy: what is live there; None where nothing is."""


async def read_details(reader: Reader, kind: RecordKind, id_: str) -> Details | None:
    """Return all that is known of one; None where the ledger has none of this id."""
    number = row_number(kind, id_)
    if number is None:
        return None
    if kind == "delivery":
        return await _delivery(reader, number)
    return await _deploy(reader, number)


async def read_attempts(reader: Reader, deploy: int) -> list[AttemptRecord]:
    """Return the calls of a deploy, the newest last."""
    rows = await reader.rows("attempts_of_deploy", {"deploy": deploy})
    return [attempt_record(row) for row in rows]


async def read_actions(reader: Reader, subject: str) -> list[ActionRecord]:
    """Return what people did to a delivery, a deploy or a target, the newest last."""
    rows = await reader.rows("actions_on_subject", {"subject": subject})
    return [
        ActionRecord(
            at=iso(row["at"]),
            by=row["by"],
            what=row["what"],
            subject=row["subject"],
            note=row["note"],
        )
        for row in rows
    ]


def attempt_record(row: Row) -> AttemptRecord:
    """Return a row of ``attempts_of_deploy``. What was exchanged is left out where it cannot be
    read."""
    kept = _unpacked(row["exchange"])
    return msgspec.structs.replace(
        kept or AttemptRecord(at="", attempt=0, outcome=""),
        at=iso(row["called_at"]),
        attempt=row["number"],
        outcome=row["outcome"],
        reason=row["reason"],
        status=row["http"],
        ms=row["ms"],
    )


async def _delivery(reader: Reader, number: int) -> Details | None:
    row = await reader.row("delivery", {"delivery": number})
    if row is None:
        return None
    ends = await reader.rows("deploy_ends_of_delivery", {"delivery": number})
    record = delivery_record(row, ends)
    reasons = await reader.rows("route_reasons", {"delivery": number})
    return Details(
        record=record,
        event=_event(row),
        actions=await read_actions(reader, record.id),
        reasons=[RouteReasonRecord(route=row["route"], reason=row["reason"]) for row in reasons],
        deploys=await read_records(reader, "deploy", [int(end["id"]) for end in ends]),
    )


async def _deploy(reader: Reader, number: int) -> Details | None:
    record = await read_deploy(reader, number)
    if record is None:
        return None
    delivery = await reader.row("delivery", {"delivery": row_number("delivery", record.delivery)})
    return Details(
        record=record,
        event=_event(delivery) if delivery is not None else {},
        attempts=await read_attempts(reader, number),
        actions=await read_actions(reader, record.id),
        live=await read_live(reader, number),
    )


async def read_live(reader: Reader, deploy: int) -> LiveRecord | None:
    """Return what is live on the target and ref of a deploy; None where nothing is."""
    consequence = await consequence_of(reader, deploy)
    live = consequence.live
    if live is None:
        return None
    return LiveRecord(
        deploy=public_id("deploy", live.deploy),
        sha=live.sha,
        at=iso(microseconds(live.at)),
        states_back=consequence.states_back,
    )


def _event(row: Row) -> dict[str, Any]:
    event: dict[str, Any] = msgspec.json.decode(row["event"])
    if "files" in event:
        event["files"] = len(event["files"])
    return event


def _unpacked(exchange: bytes | None) -> AttemptRecord | None:
    """Return what was exchanged, as an AttemptRecord in compressed JSON."""
    if exchange is None:
        return None
    try:
        return msgspec.json.decode(unpack(exchange, MOST_EXCHANGE), type=AttemptRecord)
    except (ValueError, msgspec.DecodeError):
        return None
