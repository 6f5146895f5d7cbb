"""How pages put what a record says: times, names, shapes of statuses, what may be done. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from urllib.parse import quote

from relay.reading import Record
from relay.statuses import REPLAYABLE, Kind, wait_note

PLURALS: dict[Kind, str] = {"delivery": "deliveries", "deploy": "deploys"}

Action = Literal["approve", "replay", "cancel"]

SHAPES = {
    "waiting": "○",
    "running": "◐",
    "retrying": "↻",
    "succeeded": "✓",
    "superseded": "»",
    "cancelled": "⊘",
    "stopped": "■",
    "failed": "✕",
    "held": "▲",
    "ready": "✓",
    "open": "▲",
    "paused": "■",
}
"""A status is told by its word and by a shape, so that its colour need not be seen."""

_WAITS = {
    "": "Waits for a worker, or for one of its target's slots.",
    "approval": "Waits for somebody to approve it; if nobody has, it fails at",
    "paused": "Waits because its target is paused.",
    "hours": "Waits for its target's hours, until",
    "platform": "Waits because the platform asked not to be called, until",
    "breaker": "Waits because its target's calls failed in a row, until",
    "debounce": "Waits whether a newer one comes, until",
    "order": "Waits for an older deploy to the same target, asks again at",
    "probe": "Waits while another deploy tries whether the target is well again, until",
    "rate": "Waits because its target's rate is used up, until",
}


class Line(NamedTuple):
    """A sentence, and the time that it ends with."""

    text: str
    at: str = ""
    bad: bool = False


def clock(at: str, now: datetime | None = None) -> str:
    """A time that is of today as its hour, another one with its day."""
    moment_ = _read(at)
    if moment_ is None:
        return at
    today = (now or datetime.now(UTC)).date()
    return f"{moment_:%H:%M:%S}" if moment_.date() == today else f"{moment_:%d %b %H:%M}"


def moment(at: str) -> str:
    """A whole time."""
    read = _read(at)
    return f"{read:%Y-%m-%d %H:%M:%S} UTC" if read else at


def shape(word: str) -> str:
    return SHAPES.get(word, "?")


def branch(ref: str) -> str:
    """A branch's or tag's name out of a ref."""
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def place(kind: Kind, id_: str) -> str:
    """The path of the page of one."""
    return f"/{PLURALS[kind]}/{quote(id_, safe='')}"


def actions(record: Record, kind: Kind) -> Sequence[Action]:
    """What an operator may do to it, what is likely wanted first."""
    # Once a delivery is matched its deploys wait, not it.
    waits = record.status in ("waiting", "retrying") and not (kind == "delivery" and record.deploys)
    possible: dict[Action, bool] = {
        "approve": waits and record.waits_for == "approval",
        "cancel": waits,
        "replay": record.status in REPLAYABLE and not record.replayed_by,
    }
    return [action for action, is_possible in possible.items() if is_possible]


def relations(record: Record) -> list[tuple[str, str]]:
    """Others of its kind that have to do with it."""
    known = (
        ("Superseded by", record.superseded_by),
        ("Replay of", record.replay_of),
        ("Replayed as", record.replayed_by),
    )
    return [(name, id_) for name, id_ in known if id_]


def note(record: Record) -> str:
    """What a list says of one besides its status."""
    notes = (
        record.reason,
        wait_note(record.waits_for, clock(record.waits_until)),
        f"attempt {record.attempts}" if record.target and record.attempts > 1 else "",
        f"again at {clock(record.next_at)}" if record.next_at else "",
        "superseded by a newer one" if record.superseded_by else "",
        f"by {record.cancelled_by}" if record.cancelled_by else "",
        "replayed" if record.replayed_by else "",
        "a replay" if record.replay_of else "",
    )
    return "; ".join(each for each in notes if each)


def said(kind: Kind, record: Record) -> str:
    """One of them in a few words, for a screen reader."""
    return f"{record.target or kind} {record.repo} {branch(record.ref)}: {record.status}"


def standing(record: Record) -> list[Line]:
    """Where a deploy stands, and what that asks of a person."""
    if record.status == "waiting":
        reason = record.waits_for
        return [Line(_WAITS.get(reason, f"Waits for {reason}, until"), record.waits_until)]
    if record.status == "retrying":
        return [Line("Its call did not succeed and is made again at", record.next_at)]
    if record.status == "held":
        return [
            Line(record.reason, bad=True),
            Line("Look at the platform: replay it if it has not deployed, leave it if it has."),
        ]
    if record.status == "superseded":
        return [Line("A newer deploy of its branch took its place; it was never called.")]
    told = {"running": "It is being called.", "succeeded": "The platform accepted it at"}
    text = record.reason or told.get(record.status, "")
    at = record.ended_at if record.status == "succeeded" else ""
    return [Line(text, at, bad=bool(record.reason))] if text else []


def _read(at: str) -> datetime | None:
    try:
        return datetime.fromisoformat(at).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
