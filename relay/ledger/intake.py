"""Intake: one verified webhook becomes a row, with its place in the history of its ref."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import msgspec

from relay.events.event import Event, PullRequest
from relay.events.gate import ENDED
from relay.events.ref_change import RefChange
from relay.events.ref_history import Arrival, Judgement, Verdict
from relay.ledger.endings import end_ref
from relay.ledger.refs import RefStates
from relay.ledger.rows import DeployLine, encode_event, microseconds
from relay.ledger.transaction import Row, Transaction

DeliveryStatus = Literal["queued", "routed", "ignored", "duplicate"]


class RouteReason(msgspec.Struct, frozen=True):
    """Why a route does not take a delivery."""

    route: str
    reason: str


class Payload(msgspec.Struct, frozen=True):
    """A body as it is kept, secrets redacted."""

    codec: Literal["zstd", "file", "none"]
    body: bytes
    """Of ``none`` why it is not kept, as UTF-8 text."""


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A verified webhook that is to be kept."""

    source: str
    repository: str
    """The key of its repository; see relay.events.ref_change.repository_key."""
    guid: str
    """The sender's id of the delivery; empty without one."""
    body_hash: bytes
    received_at: float
    """Seconds since the Unix epoch."""
    event: Event
    change: RefChange
    remote: str = ""
    """The address that it came from."""
    config: str = ""
    """Version of the relay.yaml that judged it."""
    is_wanted: bool = True
    """A route takes it."""
    reasons: Sequence[RouteReason] = ()
    """Of an unwanted one: what the routes of its repository said."""
    conditions: Mapping[str, bool] = {}
    """Of a pull request, for each target that wants it by labels, draft or base: whether those
    conditions hold now."""
    payload: Payload | None = None
    trace: str = ""


class StoredDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a webhook."""

    id: int
    verdict: Verdict
    status: DeliveryStatus
    reason: str = ""
    uncertain: str = ""
    rule: str = ""
    """The part of the rule in relay/events/ref_rule.py that decided."""
    other_body: bool = False
    """Its id came before with another body."""
    superseded: Sequence[DeployLine] = ()
    """Deploys that its ref's end has ended."""


LATE = "late: its ref has moved on since"
SAME = "another webhook about a state of its ref that is not the newest any more"
CANCELLED = "a person cancelled a delivery of the same state of its ref"


async def store_delivery(tx: Transaction, states: RefStates, new: NewDelivery) -> StoredDelivery:
    """Keep a delivery, unless it is known, and return what it is."""
    first = await _first_of_guid(tx, new)
    arrival = Arrival(new.change, new.guid, new.body_hash, new.received_at)
    known_body = bytes(first["body"]) if first is not None else None
    ref, judgement = await states.judge(tx, new.repository, arrival, known_body)
    if judgement.verdict == "known" and first is not None:
        await tx.run("count_redelivery", {"delivery": first["id"]})
        return StoredDelivery(
            id=first["id"], verdict="known", status=first["status"], rule=judgement.rule
        )
    superseded: list[DeployLine] = []
    if new.change.ends and judgement.verdict in ("new", "late"):
        superseded = await end_ref(tx, ref, judgement.pos, ENDED)
    status, reason = _status(new, judgement)
    turns = await _turns(tx, ref, new) if judgement.is_newest else {}
    if status == "queued" and judgement.verdict == "same":
        state = {"ref": ref, "state": judgement.no, "turns": _encode_turns(turns)}
        if await tx.row("cancelled_delivery", state) is not None:
            status, reason = "duplicate", CANCELLED
    number = await _insert(tx, new, ref, judgement, status, reason, turns)
    return StoredDelivery(
        id=number,
        verdict=judgement.verdict,
        status=status,
        reason=reason,
        uncertain=judgement.uncertain,
        rule=judgement.rule,
        other_body=known_body is not None and known_body != new.body_hash,
        superseded=superseded,
    )


async def _first_of_guid(tx: Transaction, new: NewDelivery) -> Row | None:
    if not new.guid:
        return None
    return await tx.row(
        "delivery_of_guid", {"source": new.source, "guid": new.guid, "body": new.body_hash}
    )


def _status(new: NewDelivery, judgement: Judgement) -> tuple[DeliveryStatus, str]:
    """Return the status, and the reason of one that leads to nothing."""
    if judgement.verdict == "late":
        return "ignored", LATE
    if not judgement.is_newest:
        return "duplicate", SAME
    if not new.is_wanted:
        reasons = "; ".join(f"{one.route}: {one.reason}" for one in new.reasons)
        return "ignored", reasons or f"no route for repository {new.event.repo}"
    return "queued", ""


async def _turns(tx: Transaction, ref: int, new: NewDelivery) -> dict[str, int]:
    """Return for each target how often its conditions became true again, this event included.

    A late copy of an older event says nothing: its labels are not those of now.
    """
    if not new.conditions:
        return {}
    at = new.change.at
    rows = {row["target"]: row for row in await tx.rows("ref_turns", {"ref": ref})}
    turns = {}
    for target, holds in new.conditions.items():
        row = rows.get(target)
        turn = int(row["turn"]) if row else 0
        is_old = row is not None and None not in (at, row["at"]) and cast(float, at) < row["at"]
        if not is_old:
            turn += int(holds and row is not None and not row["holds"])
            written = {"ref": ref, "target": target, "turn": turn, "holds": int(holds), "at": at}
            await tx.run("write_ref_turn", written)
        if turn:
            turns[target] = turn
    return turns


async def _insert(
    tx: Transaction,
    new: NewDelivery,
    ref: int,
    judgement: Judgement,
    status: DeliveryStatus,
    reason: str,
    turns: Mapping[str, int],
) -> int:
    event = new.event
    message = event.title if isinstance(event, PullRequest) else event.message
    row = await tx.row(
        "insert_delivery",
        {
            "source": new.source,
            "guid": new.guid,
            "body": new.body_hash,
            "received_at": microseconds(new.received_at),
            "kind": event.kind,
            "action": event.action if isinstance(event, PullRequest) else "",
            "repo": event.repo,
            "ref": ref,
            "ref_name": new.change.name,
            "branch": short_name(event),
            "state": judgement.no,
            "sha": event.sha,
            "sender": event.sender,
            "author": "\n".join(event.author.names()),
            "remote": new.remote,
            "message": message,
            "event": encode_event(event),
            "turns": _encode_turns(turns),
            "config": new.config,
            "verdict": judgement.verdict,
            "status": status,
            "reason": reason,
            "uncertain": judgement.uncertain,
            "trace": new.trace,
            "replay_of": None,
            "requested_by": "",
            "next_at": tx.now if status == "queued" else None,
        },
    )
    if row is None:
        raise RuntimeError("an insert returned no row")
    number = int(row["id"])
    if message:
        await tx.run("insert_delivery_text", {"delivery": number, "message": message})
    if new.payload is not None:
        kept = {"delivery": number, "codec": new.payload.codec, "body": new.payload.body}
        await tx.run("insert_payload", kept)
    if status == "ignored" and new.reasons:
        await tx.run_many(
            "insert_route_reason",
            [
                {"delivery": number, "place": place, "route": one.route, "reason": one.reason}
                for place, one in enumerate(new.reasons)
            ],
        )
    return number


def _encode_turns(turns: Mapping[str, int]) -> str:
    return msgspec.json.encode(turns).decode() if turns else ""


def short_name(event: Event) -> str:
    """Return the name of the event's branch or tag, of a pull request that of its head."""
    if isinstance(event, PullRequest):
        return event.head_ref
    return event.branch or event.tag or event.ref
