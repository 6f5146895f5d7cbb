"""Routing: a queued delivery becomes deploys, or is found to be a duplicate or unwanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from relay.events.event import Event
from relay.events.gate import REPLACED
from relay.ledger.endings import supersede_older
from relay.ledger.intake import DeliveryStatus, RouteReason
from relay.ledger.rows import DeployLine, decode_event, microseconds, seconds
from relay.ledger.targets import target_number
from relay.ledger.transaction import Reader, Row, Transaction

_decode_turns = msgspec.json.Decoder(dict[str, int]).decode


class QueuedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is to be routed. Times are seconds since the Unix epoch."""

    id: int
    source: str
    event: Event
    received_at: float
    config: str
    sender: str
    author: str
    remote: str
    uncertain: str
    trace: str
    replay_of: int
    requested_by: str


class WantedDeploy(msgspec.Struct, frozen=True, kw_only=True):
    """A deploy that a route wants."""

    target: str
    route: str
    call_key: str = ""
    """Tells calls of one delivery to one target that differ; empty where they cannot."""
    newest_only: bool = False
    """An older deploy that waits gives way to it."""


class RoutedDeploy(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a wanted deploy."""

    id: int
    target: str
    route: str
    is_new: bool
    """False of a duplicate: ``id`` is the deploy that exists."""
    superseded: Sequence[DeployLine] = ()


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery."""

    status: DeliveryStatus
    deploys: Sequence[RoutedDeploy]


async def queued_deliveries(reader: Reader, first: int, last: int) -> list[QueuedDelivery]:
    """Return the deliveries with ids from ``first`` to ``last`` that wait to be routed."""
    rows = await reader.rows("queued_deliveries", {"first": first, "last": last})
    return [
        QueuedDelivery(
            id=row["id"],
            source=row["source"],
            event=decode_event(row["event"]),
            received_at=seconds(row["received_at"]),
            config=row["config"],
            sender=row["sender"],
            author=row["author"],
            remote=row["remote"],
            uncertain=row["uncertain"],
            trace=row["trace"],
            replay_of=row["replay_of"] or 0,
            requested_by=row["requested_by"],
        )
        for row in rows
    ]


async def route_delivery(
    tx: Transaction,
    number: int,
    wanted: Sequence[WantedDeploy],
    reasons: Sequence[RouteReason] = (),
    trace: str = "",
) -> Routed | None:
    """Queue the deploys that the routes want of a delivery.

    Return None where it is not its turn: another worker has routed it, a person cancelled it, the
    ledger is behind, or an older delivery of its ref is due first. Then it stays due, and the sweep
    brings it again.
    """
    rows = await tx.rows("queued_deliveries", {"first": number, "last": number})
    if not rows or tx.is_behind:
        # A ledger that went back in time may have forgotten that it was routed.
        return None
    line = {"ref": rows[0]["ref"], "now": tx.now, "delivery": number}
    if await tx.row("older_queued_delivery", line) is not None:
        return None
    deploys = [await _queue(tx, rows[0], one, trace) for one in wanted]
    status: DeliveryStatus = "ignored"
    if deploys:
        status = "routed" if any(deploy.is_new for deploy in deploys) else "duplicate"
    reason = "" if deploys else "no route wants it any more"
    finished = {"delivery": number, "status": status, "reason": reason}
    await tx.run("finish_routing", finished)
    if not deploys:
        await tx.run_many(
            "insert_route_reason",
            [
                {"delivery": number, "place": place, "route": one.route, "reason": one.reason}
                for place, one in enumerate(reasons)
            ],
        )
    return Routed(status=status, deploys=deploys)


async def postpone_delivery(tx: Transaction, delivery: int, seconds: float) -> None:
    """Have a queued delivery routed in so many seconds."""
    again_at = tx.now + microseconds(seconds)
    await tx.run("postpone_delivery", {"delivery": delivery, "next_at": again_at})


async def _queue(tx: Transaction, row: Row, wanted: WantedDeploy, trace: str) -> RoutedDeploy:
    target = await target_number(tx, wanted.target)
    turns = _decode_turns(row["turns"]) if row["turns"] else {}
    is_replay = row["replay_of"] is not None
    place = {
        "delivery": row["id"],
        "target": target,
        "ref": row["ref"],
        "state": row["state"],
        "pos": row["pos"],
        "turn": turns.get(wanted.target, 0),
        "call_key": wanted.call_key,
        "replay": 0,
        "route": wanted.route,
        "now": tx.now,
        "line_at": tx.now,
        "replay_of": None,
        "requested_by": row["requested_by"],
        "approved_by": "",
        "is_forced": int(is_replay),
        "trace": trace,
    }
    existing = None
    if is_replay:
        existing = await tx.row("open_deploy_of_call", place)
        last = cast(Row, await tx.row("next_replay", place))
        # A person asked for it: it stands behind all that is there.
        place["replay"] = last["replay"]
        place["pos"] = max(row["pos"], last["pos"])
    made = None if existing else await tx.row("insert_deploy", place)
    if made is None:
        same = existing or await tx.row("same_deploy", place)
        return RoutedDeploy(
            id=cast(Row, same)["id"], target=wanted.target, route=wanted.route, is_new=False
        )
    number = int(made["id"])
    superseded: list[DeployLine] = []
    if wanted.newest_only:
        superseded = await supersede_older(tx, number, REPLACED)
    return RoutedDeploy(
        id=number,
        target=wanted.target,
        route=wanted.route,
        is_new=True,
        superseded=superseded,
    )
