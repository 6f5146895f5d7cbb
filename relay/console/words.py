"""The words of pages: times, names, shapes of statuses, possible actions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from urllib.parse import quote

from relay.events.deploy_life import LIFE, Stage, WaitReason, wait_note
from relay.ledger.records import Record, RecordKind

PLURALS: dict[RecordKind, str] = {"delivery": "deliveries", "deploy": "deploys"}

Action = Literal["approve", "replay", "cancel", "dismiss"]

SHAPES = {
    "waiting": "○",
    "calling": "◐",
    "accepted": "◑",
    "succeeded": "✓",
    "failed": "✕",
    "uncertain": "▲",
    "unknown": "?",
    "cancelled": "⊘",
    "superseded": "»",
    "dismissed": "⊖",
    "queued": "○",
    "routed": "✓",
    "ignored": "∘",
    "duplicate": "=",
    "ready": "✓",
    "open": "▲",
    "paused": "■",
}
"""A status is shown by its word and by a shape, so that its colour need not be seen."""

VERDICTS = {
    "new": "It is a new state of its ref.",
    "same": "Another webhook reported this state of its ref before.",
    "known": "It is the same delivery as an earlier one.",
    "late": "It is late: its ref has moved on since, so it is not deployed.",
}
"""What the history of the ref says of a delivery."""

CHECK_PLATFORM = (
    "No answer from the platform. It may have deployed: check there, then replay or dismiss."
)

_WAITS: Mapping[WaitReason | Literal[""], str] = {
    "": "Waits for a worker.",
    "retry": "Its call did not succeed. It is made again",
    "approval": "Waits for an operator to approve it. Without an approval it fails",
    "paused": "Waits because its target is paused.",
    "hours": "Waits for its target's hours. They begin",
    "platform": "Waits because the platform asked not to be called. The next call is made",
    "breaker": "Waits because its target's circuit breaker is open. A call is tried",
    "probe": "Waits for the result of the probe: another deploy tests its target.",
    "debounce": "Waits for a newer one. Without one it is called",
    "order": "Waits for an older deploy of its target and branch.",
    "slot": "Waits for a slot at its target.",
    "rate": "Waits because its target's rate is used up. It is called",
}

_UNITS = (("d", 86_400, 172_800), ("h", 3_600, 3_600), ("min", 60, 60), ("s", 1, 0))
"""Units of length, their seconds, and from how many on they are used; static/console.js has the
same."""

_UNKNOWN = Stage("unknown")


class Line(NamedTuple):
    """A sentence, and the time that it ends with."""

    text: str
    at: str = ""
    """The page shows it as "3 min ago" or "in 5 min"."""
    is_bad: bool = False


def clock(at: str, now: datetime | None = None) -> str:
    """Return a time of today as its hour, another one with its day."""
    moment_ = _read(at)
    if moment_ is None:
        return at
    today = (now or datetime.now(UTC)).date()
    return f"{moment_:%H:%M:%S}" if moment_.date() == today else f"{moment_:%d %b %H:%M}"


def relative(at: str, now: datetime | None = None) -> str:
    """Return a time as people say it: "3 min ago", "in 2 h"."""
    moment_ = _read(at)
    if moment_ is None:
        return at
    seconds = ((now or datetime.now(UTC)) - moment_).total_seconds()
    length = next(
        f"{int(abs(seconds) // size)} {unit}"
        for unit, size, least in _UNITS
        if abs(seconds) >= least
    )
    return f"{length} ago" if seconds >= 0 else f"in {length}"


def moment(at: str) -> str:
    """Return a whole time."""
    read = _read(at)
    return f"{read:%Y-%m-%d %H:%M:%S} UTC" if read else at


def epoch(at: str) -> float:
    """Return a time of a record in seconds since the Unix epoch; 0 of one that is none."""
    read = _read(at)
    return read.timestamp() if read else 0


def sentence(text: str) -> str:
    """Return a reason as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}."


def shape(word: str) -> str:
    """Return the shape of a status, of a verdict's status or of a target's state."""
    return SHAPES.get(word, "?")


def label(word: str) -> str:
    """Return the word that people read for a status."""
    return stage(word).label if word in LIFE else word


def stage(status: str) -> Stage:
    """Return what a deploy's status means and allows."""
    return next((one for name, one in LIFE.items() if name == status), _UNKNOWN)


def branch(ref: str) -> str:
    """Return a branch's or tag's name out of a ref."""
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def place(kind: RecordKind, id_: str) -> str:
    """Return the path of the page of a delivery or deploy."""
    return f"/{PLURALS[kind]}/{quote(id_, safe='')}"


def actions(record: Record, kind: RecordKind) -> Sequence[Action]:
    """Return what an operator may do to it, the likeliest first."""
    if kind == "delivery":
        return _delivery_actions(record)
    allowed = stage(record.status)
    is_settled = bool(record.replayed_by)
    possible: dict[Action, bool] = {
        "approve": allowed.is_approvable and record.waits_for == "approval",
        "replay": allowed.is_replayable and not is_settled,
        "dismiss": allowed.is_dismissable and not is_settled,
        "cancel": allowed.is_cancellable,
    }
    return [action for action, is_possible in possible.items() if is_possible]


def _delivery_actions(record: Record) -> Sequence[Action]:
    if record.status == "queued":
        return ["cancel"]
    # What led to nothing is replayed once relay.yaml has a route for it.
    is_replayable = record.status == "ignored" or stage(record.outcome).is_replayable
    return ["replay"] if is_replayable else []


def relations(record: Record) -> list[tuple[str, str]]:
    """Return others of its kind that it is related to."""
    related = (
        ("Superseded by", record.superseded_by),
        ("Replay of", record.replay_of),
        ("Replayed as", record.replayed_by),
    )
    return [(name, id_) for name, id_ in related if id_]


def shown_status(record: Record) -> str:
    """Return the status that a list shows: of a routed delivery that of its deploys."""
    return record.outcome or record.status


def note(record: Record) -> str:
    """Return what a list says of one besides its status."""
    notes = (
        record.reason,
        wait_note(record.waits_for, clock(record.waits_until)),
        f"attempt {record.attempts}" if record.target and record.attempts > 1 else "",
        "superseded by a newer one" if record.superseded_by else "",
        "a newer one has succeeded" if record.overtaken else "",
        f"cancelled by {record.cancelled_by}" if record.cancelled_by and record.target else "",
        f"dismissed by {record.dismissed_by}" if record.dismissed_by else "",
        "replayed" if record.replayed_by else "",
        "a replay" if record.replay_of else "",
        "live" if record.live else "",
        "order uncertain" if record.uncertain and not record.target else "",
    )
    return "; ".join(each for each in notes if each)


def said(kind: RecordKind, record: Record) -> str:
    """Return one of them in a few words, for a screen reader."""
    name = record.target or kind
    return f"{name} {record.repo} {record.branch}: {label(shown_status(record))}"


def standing(record: Record) -> list[Line]:
    """Return where a deploy stands, and what that asks of a person."""
    lines = _standing(record)
    if record.overtaken and stage(record.status).needs_attention:
        lines.append(Line("A newer deploy of its target and branch has succeeded since."))
    if record.live:
        lines.append(Line("It is live."))
    return lines


def _standing(record: Record) -> list[Line]:
    reason, status = record.reason, record.status
    if status == "waiting":
        text = next((text for name, text in _WAITS.items() if name == record.waits_for), "Waits.")
        lines = [Line(text, record.waits_until)]
        return [*lines, Line(sentence(reason))] if reason else lines
    if status == "uncertain":
        return [Line(reason, is_bad=True), Line(CHECK_PLATFORM)]
    if status == "superseded":
        why = f"{reason[:1].upper()}{reason[1:]}: " if reason else ""
        return [Line(f"{why}a newer deploy of its target and branch took its place.")]
    if status == "dismissed":
        return [Line(f"{record.dismissed_by} dismissed it.", is_bad=False)]
    if status == "cancelled":
        return []
    texts = {
        "calling": "It is being called.",
        "accepted": "The platform accepted the call. The relay follows the deployment.",
        "succeeded": "The platform accepted it",
        "unknown": "The relay followed the deployment and saw no end of it.",
    }
    text = reason or texts.get(status, "")
    at = record.ended_at if status == "succeeded" and not reason else ""
    return [Line(text, at, is_bad=status == "failed")] if text else []


def _read(at: str) -> datetime | None:
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(at).astimezone(UTC)
    return None
