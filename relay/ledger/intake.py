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
    encoded_event: str = ""
    """The event as the ledger keeps it; empty to have it encoded in the transaction."""
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
    first: int = 0
    """Of a duplicate: the delivery that came first with the same request or the same state."""
    superseded: Sequence[DeployLine] = ()
    """Deploys that its ref's end has ended."""
    superseded_because: str = ENDED


MOST_OF_GUID = 20
"""Deliveries with one id that are looked at; git servers give an id to one."""

MOST_REASONS_TOLD = 5
"""Routes whose reasons stand in the answer and the audit; the ledger has all of them."""

LATE = "its ref has moved on since"
SAME = "another webhook about a state of its ref that is not the newest any more"
CANCELLED = "a person cancelled a delivery of the same state of its ref"


async def store_delivery(tx: Transaction, states: RefStates, new: NewDelivery) -> StoredDelivery:
    """Keep a delivery, unless it is known, and return what it is."""
    of_guid = await _first_of_guid(tx, new)
    known_body = of_guid["body"] if of_guid is not None else None
    if of_guid is not None and known_body == new.body_hash:
        # Rule 0 of relay/events/ref_rule.py; it needs no state.
        await tx.run("count_redelivery", {"delivery": of_guid["id"]})
        return StoredDelivery(
            id=of_guid["id"],
            verdict="known",
            status=of_guid["status"],
            rule="0",
            first=of_guid["id"],
        )
    arrival = Arrival(new.change, new.guid, new.body_hash, new.received_at)
    ref, judgement = await states.judge(tx, new.repository, arrival, known_body)
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
    first = await _first_of_state(tx, ref, judgement.no) if status == "duplicate" else 0
    return StoredDelivery(
        id=number,
        verdict=judgement.verdict,
        status=status,
        reason=reason,
        uncertain=judgement.uncertain,
        rule=judgement.rule,
        first=first,
        other_body=known_body is not None,
        superseded=superseded,
    )


async def _first_of_guid(tx: Transaction, new: NewDelivery) -> Row | None:
    """Return the delivery that came before with this id, rather one with the same body."""
    if not new.guid:
        return None
    rows = await tx.rows(
        "deliveries_of_guid", {"source": new.source, "guid": new.guid, "most": MOST_OF_GUID}
    )
    if not rows:
        return None
    return next((row for row in rows if row["body"] == new.body_hash), rows[0])


async def _first_of_state(tx: Transaction, ref: int, state: int) -> int:
    row = await tx.row("first_delivery_of_state", {"ref": ref, "state": state})
    if row is None:
        raise RuntimeError("a delivery that was inserted is not there")
    return int(row["id"])


def _status(new: NewDelivery, judgement: Judgement) -> tuple[DeliveryStatus, str]:
    """Return the status, and the reason of one that leads to nothing."""
    if judgement.verdict == "late":
        return "ignored", LATE
    if not judgement.is_newest:
        return "duplicate", SAME
    if not new.is_wanted:
        told = new.reasons[:MOST_REASONS_TOLD]
        reasons = "; ".join(f"{one.route}: {one.reason}" for one in told)
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
        # Without a row they held all the time, as they do for most requests.
        if not is_old and (row is not None or not holds):
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
    number = await tx.insert(
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
            "event": new.encoded_event or encode_event(event),
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
