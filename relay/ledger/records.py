"""Deliveries and deploys as lists, pages, the API and commands tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from relay.events.deploy_life import WORST_FIRST, Status
from relay.events.ids import public_id
from relay.ledger.rows import MICROSECONDS, request_number, shown_ref
from relay.ledger.transaction import Reader, Row

RecordKind = Literal["delivery", "deploy"]

DELIVERY_STATUSES = ("queued", "routed", "ignored", "duplicate")
"""Every status of a delivery, in the order in which lists name them."""

VERDICTS = ("new", "same", "known", "late")
"""Every verdict on a delivery."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery or deploy. A field is empty where there is none, or where it is of the other
    kind only. Times are ISO 8601, UTC."""

    id: str
    status: str
    """Of a deploy a Status of relay/events/deploy_life.py, of a delivery one of
    DELIVERY_STATUSES."""
    reason: str = ""
    """Why it stands so."""
    kind: str = ""
    """push, tag, pull_request or delete."""
    action: str = ""
    """Of a pull request."""
    repo: str = ""
    ref: str = ""
    """``refs/heads/…`` or ``refs/tags/…``; of a pull request that of its head."""
    branch: str = ""
    """The short name of the branch or tag."""
    sha: str = ""
    number: int | None = None
    """Of a pull request."""
    title: str = ""
    """The first line of the commit's message, or the title of the pull request."""
    author: str = ""
    """Login, name or email of the commit's author: the first that is known."""
    sender: str = ""
    source: str = ""
    delivery: str = ""
    """Of a deploy: the id of its delivery."""
    verdict: str = ""
    """What the history of the ref says of the delivery: new, same, known or late."""
    uncertain: str = ""
    """Why the place of the delivery in the history of its ref is uncertain."""
    redeliveries: int = 0
    """How often the delivery came again."""
    route: str = ""
    target: str = ""
    attempts: int = 0
    """Calls that a deploy began."""
    created_at: str = ""
    """When the delivery was received, or the deploy queued."""
    ended_at: str = ""
    """When the deploy ended; of a delivery, when the last of its deploys did."""
    waits_for: str = ""
    """What a waiting deploy waits for, a WaitReason of relay/events/deploy_life.py; empty where it
    waits for a worker only."""
    waits_until: str = ""
    """Until when, if that is known."""
    next_at: str = ""
    """When its next attempt is made, of a deploy that waits for one."""
    http: int | None = None
    """The status of the platform's last answer."""
    deployment_id: str = ""
    deploys: Sequence[str] = ()
    """Of a delivery: the ids of its deploys, the oldest first."""
    outcome: str = ""
    """Of a delivery with deploys: the status of the one that needs a look first."""
    live: bool = False
    """The deploy is what is live on its target and ref."""
    live_before: str = ""
    """The deploy that was live there when this one was called."""
    overtaken: bool = False
    """A newer deploy of its target and ref succeeded."""
    superseded_by: str = ""
    replay_of: str = ""
    replayed_by: str = ""
    requested_by: str = ""
    """Who asked for this replay."""
    cancelled_by: str = ""
    approved_by: str = ""
    dismissed_by: str = ""


def iso(microseconds: int | None) -> str:
    """Return a time of the ledger as machines read it; empty for none."""
    if not microseconds:
        return ""
    whole, rest = divmod(microseconds, MICROSECONDS)
    moment = datetime.fromtimestamp(whole, UTC).replace(microsecond=rest)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


async def read_records(reader: Reader, kind: RecordKind, numbers: Sequence[int]) -> list[Record]:
    """Return the deliveries or deploys with these numbers that exist, in the same order."""
    read = read_delivery if kind == "delivery" else read_deploy
    records = [await read(reader, number) for number in numbers]
    return [record for record in records if record is not None]


async def read_delivery(reader: Reader, number: int) -> Record | None:
    """Return one delivery; None where there is none."""
    row = await reader.row("delivery", {"delivery": number})
    if row is None:
        return None
    deploys = await reader.rows("deploy_ends_of_delivery", {"delivery": number})
    return delivery_record(row, deploys)


async def read_deploy(reader: Reader, number: int) -> Record | None:
    """Return one deploy; None where there is none."""
    row = await reader.row("deploy", {"deploy": number})
    return None if row is None else deploy_record(row)


def delivery_record(row: Row, deploys: Sequence[Row]) -> Record:
    """Return a row of ``delivery`` with those of ``deploy_ends_of_delivery``."""
    ends = [deploy["ended_at"] for deploy in deploys]
    ended_at = None if row["status"] == "queued" or None in ends else max(ends, default=None)
    return Record(
        id=public_id("delivery", row["id"]),
        status=row["status"],
        reason=row["reason"],
        **_of_event(row),
        redeliveries=row["redeliveries"],
        created_at=iso(row["received_at"]),
        ended_at=iso(ended_at),
        deploys=[public_id("deploy", deploy["id"]) for deploy in deploys],
        outcome=worst([deploy["status"] for deploy in deploys]),
        replay_of=_id("delivery", row["replay_of"]),
        requested_by=row["requested_by"],
        cancelled_by=row["cancelled_by"],
    )


def deploy_record(row: Row) -> Record:
    """Return a row of ``deploy``."""
    is_waiting = row["status"] == "waiting"
    until = iso(row["waits_until"]) if is_waiting else ""
    return Record(
        id=public_id("deploy", row["id"]),
        status=row["status"],
        reason=row["reason"],
        **_of_event(row),
        delivery=public_id("delivery", row["delivery"]),
        route=row["route"],
        target=row["target_name"],
        attempts=row["attempt"],
        created_at=iso(row["created_at"]),
        ended_at=iso(row["ended_at"]),
        waits_for=row["waits"] if is_waiting else "",
        waits_until=until,
        next_at=until if row["waits"] == "retry" else "",
        http=row["http"],
        deployment_id=row["deployment_id"],
        live=row["live_deploy"] == row["id"],
        live_before=_id("deploy", row["live_before"]),
        overtaken=bool(row["overtaken"]),
        superseded_by=_id("deploy", row["superseded_by"]),
        replay_of=_id("deploy", row["replay_of"]),
        replayed_by=_id("deploy", row["replayed_by"]),
        requested_by=row["requested_by"],
        cancelled_by=row["cancelled_by"],
        approved_by=row["approved_by"],
        dismissed_by=row["dismissed_by"],
    )


def worst(statuses: Sequence[Status]) -> str:
    """Return the status of a delivery's deploys that needs a look first; empty without deploys."""
    return next((status for status in WORST_FIRST if status in statuses), "")


def _of_event(row: Row) -> dict[str, Any]:
    """Return what a record says of its delivery."""
    return {
        "kind": row["kind"],
        "action": row["action"],
        "repo": row["repo"],
        "ref": shown_ref(row),
        "branch": row["branch"],
        "sha": row["sha"],
        "number": request_number(row) or None,
        "title": row["message"].partition("\n")[0],
        "author": row["author"].partition("\n")[0],
        "sender": row["sender"],
        "source": row["source"],
        "verdict": row["verdict"],
        "uncertain": row["uncertain"],
    }


def _id(kind: RecordKind, number: int | None) -> str:
    return public_id(kind, number) if number else ""
