"""Replay: a new row does again what an old one did, because a person asks for it.

It stands behind all deploys of its target and ref, and passes every guard that they pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from config.model import Target
from relay.events.deploy_life import ENDED, LIFE
from relay.events.gate import REPLACED
from relay.events.ids import public_id
from relay.ledger.actions import (
    ActionLine,
    Consequence,
    Done,
    Wish,
    consequence_of,
    consequence_of_delivery,
    note_action,
    superseded_line,
)
from relay.ledger.endings import supersede_older
from relay.ledger.rows import deploy_line
from relay.ledger.transaction import Row, Transaction

FORCED = "forced"
"""Note of an action whose consequence a person accepted."""


class NewDeploy(NamedTuple):
    """A deploy that an action made."""

    id: int
    lines: list[ActionLine]


async def replay_deploy(
    tx: Transaction, number: int, wish: Wish, targets: Mapping[str, Target]
) -> Done:
    """Queue the call of a deploy that has ended once more. ``targets`` are relay.yaml's."""
    name = public_id("deploy", number)
    row = await tx.row("deploy", {"deploy": number})
    if row is None:
        return Done(id=name, refusal="unknown")
    refused = await _not_ended(tx, row, name)
    if refused is not None:
        return refused
    target = targets.get(row["target_name"])
    if target is None:
        return Done(id=name, refusal="target", other=row["target_name"])
    consequence = await consequence_of(tx, number)
    if not wish.forced:
        refused = await _undesired(tx, row, name, consequence)
        if refused is not None:
            return refused
    if wish.dry:
        return Done(id=name, consequence=consequence)
    made = await queue_again(tx, row, wish, newest_only=target.newest_only)
    new = public_id("deploy", made.id)
    await note_action(tx, "replay", name, wish.by, FORCED if wish.forced else "")
    return Done(id=name, new=new, consequence=consequence, lines=made.lines, woken=[made.id])


async def _not_ended(tx: Transaction, row: Row, name: str) -> Done | None:
    """Refuse where the same call is still to come, even to a person who forces it."""
    if row["replayed_by"] is not None:
        replay = await tx.row("deploy", {"deploy": row["replayed_by"]})
        if replay is not None and replay["status"] not in ENDED:
            return Done(id=name, refusal="replaying", other=public_id("deploy", replay["id"]))
    if row["status"] not in ENDED:
        return Done(id=name, refusal="active", other=row["status"])
    same = await tx.row("open_deploy_of_call", _call(row))
    if same is not None:
        return Done(id=name, refusal="busy", other=public_id("deploy", same["id"]))
    return None


async def _undesired(tx: Transaction, row: Row, name: str, consequence: Consequence) -> Done | None:
    """Refuse what a person has to force."""
    if row["replayed_by"] is not None:
        return Done(id=name, refusal="replayed", other=public_id("deploy", row["replayed_by"]))
    if not LIFE[row["status"]].is_replayable:
        return Done(id=name, refusal="succeeded", consequence=consequence)
    since = await tx.row("success_of_call", {**_call(row), "deploy": row["id"]})
    if since is not None:
        return Done(id=name, refusal="done", other=public_id("deploy", since["id"]))
    if not consequence.is_harmless:
        return refused_as_overtaken(name, consequence)
    return None


def refused_as_overtaken(name: str, consequence: Consequence) -> Done:
    """Return the refusal of what would undo something newer."""
    words = consequence.in_words()
    return Done(id=name, refusal="overtaken", other=words, consequence=consequence)


def _call(row: Row) -> dict[str, object]:
    names = ("target", "ref", "state", "turn", "call_key")
    return {name: row[name] for name in names}


async def queue_again(
    tx: Transaction, row: Row, wish: Wish, *, newest_only: bool, is_approved: bool = False
) -> NewDeploy:
    """Insert a deploy that makes the call of ``row`` again, behind all of its target and ref."""
    last = await tx.row("next_replay", _call(row))
    assert last is not None  # noqa: S101 - an aggregate always has a row
    again = {
        **_call(row),
        "delivery": row["delivery"],
        "route": row["route"],
        "trace": row["trace"],
        "pos": last["pos"],
        "replay": last["replay"],
        "now": tx.now,
        "line_at": tx.now,
        "replay_of": row["id"],
        "requested_by": wish.by,
        "approved_by": wish.by if is_approved else "",
        "is_forced": int(wish.forced),
    }
    made = await tx.row("insert_deploy", again)
    if made is None:
        raise RuntimeError("a replay met a deploy with its number")
    number = int(made["id"])
    await tx.run("link_replay", {"deploy": row["id"], "new": number})
    superseded = []
    if newest_only:
        superseded = await supersede_older(tx, number, REPLACED)
    new = await tx.row("deploy", {"deploy": number})
    assert new is not None  # noqa: S101 - it was inserted above
    lines = [ActionLine(event="deploy.queued", subject=deploy_line(new))]
    lines += [superseded_line(line, number) for line in superseded]
    return NewDeploy(number, lines)


async def replay_delivery(tx: Transaction, number: int, wish: Wish) -> Done:
    """Queue a delivery like this one, which a worker routes by its own relay.yaml."""
    name = public_id("delivery", number)
    row = await tx.row("delivery", {"delivery": number})
    if row is None:
        return Done(id=name, refusal="unknown")
    if row["status"] == "queued":
        return Done(id=name, refusal="active", other="queued")
    replay = await tx.row("newest_replay_of_delivery", {"delivery": number})
    if replay is not None and replay["status"] == "queued":
        return Done(id=name, refusal="replaying", other=public_id("delivery", replay["id"]))
    consequence = await consequence_of_delivery(tx, number)
    if not wish.forced:
        if replay is not None:
            other = public_id("delivery", replay["id"])
            return Done(id=name, refusal="replayed", other=other)
        if row["status"] == "routed" and not await _has_replayable(tx, number):
            return Done(id=name, refusal="succeeded", consequence=consequence)
        if not consequence.is_harmless:
            return refused_as_overtaken(name, consequence)
    if wish.dry:
        return Done(id=name, consequence=consequence)
    again = {
        **cast(Mapping[str, Any], row),
        "guid": "",
        "received_at": tx.now,
        "status": "queued",
        "reason": "",
        "replay_of": number,
        "requested_by": wish.by,
        "next_at": tx.now,
    }
    # Its payload stays with the first one.
    new = await tx.insert("insert_delivery", again)
    if row["message"]:
        text = {"delivery": new, "message": row["message"]}
        await tx.run("insert_delivery_text", text)
    await note_action(tx, "replay", name, wish.by, FORCED if wish.forced else "")
    return Done(id=name, new=public_id("delivery", new), consequence=consequence)


async def _has_replayable(tx: Transaction, number: int) -> bool:
    rows = await tx.rows("deploy_ends_of_delivery", {"delivery": number})
    return any(LIFE[row["status"]].is_replayable and row["replayed_by"] is None for row in rows)
