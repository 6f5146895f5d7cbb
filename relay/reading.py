"""What the fields of a delivery's or deploy's job say. Pure.

Nothing read here is trusted to be harmless. Whoever can write to Redis can have a worker call any
function, but not the operator who merely looks: arguments and results are read as plain data.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from rq.results import Result

from relay.events.event import MAX_EVENT, Event, PullRequest, Push
from relay.records import (
    APPROVED_BY_FIELD,
    ATTEMPTS_FIELD,
    CANCELLED_BY_FIELD,
    DEPLOYS_FIELD,
    ENDLESS,
    HELD_ERROR,
    REPLAY_OF_FIELD,
    REPLAYED_BY_FIELD,
    REQUESTED_BY_FIELD,
    STRIPPED_FIELD,
    SUPERSEDED_BY_FIELD,
    WAITING_FIELD,
)
from relay.statuses import ACTIVE, Kind, Status

T = TypeVar("T")

Fields = Mapping[bytes, bytes]
"""A hash or a stream's entry, as Redis gives it."""

_MOST_DATA = 2 * MAX_EVENT
"""Bytes that are unpacked of arguments and tracebacks; ours are shorter."""

_MOST_REASON = 1_000
"""Characters of a reason; ours are shorter."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,200}")

STOPPED = "Job stopped by user."
"""What RQ writes of a run that its command stopped."""

NOT_KEPT = (
    "It ended well, and others have ended since: its event, its runs, and the requests and answers "
    "of its attempts are not kept any more (RELAY_HISTORY)."
)
"""What is said of a record that is ``stripped``."""

_ABANDONED = "due to AbandonedJobError"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one delivery or deploy. Empty is what it has not, or nobody knows."""

    id: str
    status: Status
    reason: str = ""
    """Why it failed or is held."""
    kind: str = ""
    repo: str = ""
    ref: str = ""
    sha: str = ""
    number: int | None = None
    source: str = ""
    delivery: str = ""
    route: str = ""
    target: str = ""
    attempts: int = 0
    created_at: str = ""
    ended_at: str = ""
    waits_for: str = ""
    """What it waits for: the reason that ``deploy.waiting`` told last."""
    waits_until: str = ""
    """Until when, if that is known."""
    next_at: str = ""
    """When its next attempt is made."""
    deploys: Sequence[str] = ()
    superseded_by: str = ""
    replay_of: str = ""
    replayed_by: str = ""
    requested_by: str = ""
    """Who asked for this replay."""
    cancelled_by: str = ""
    approved_by: str = ""
    stripped: bool = False
    """Its event, runs and attempts are not kept any more."""


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """What both kinds of jobs are called with: Delivery, and Deploy of workers/deploys.py."""

    source: str
    event: Event
    delivery: str = ""
    route: str = ""
    target: str = ""


class End(NamedTuple):
    """How one run of a job ended, as RQ keeps it."""

    at: str
    how: str
    """In RQ's words, but for a run that only waited, which is ``waited``."""
    reason: str = ""
    held: bool = False
    value: Mapping[str, Any] = {}


def record(
    kind: Kind, id_: str, job: Fields, status: Status, end: End | None, due: float | None, runs: int
) -> Record:
    """``end`` is that of the last of so many ``runs``, ``due`` when RQ's scheduler will queue it,
    in seconds since the Unix epoch."""

    def text(field: str) -> str:
        return job.get(field.encode(), b"").decode(errors="replace")

    stripped = job.get(STRIPPED_FIELD.encode())
    task = read_task(job.get(b"data"), stripped)
    event = task.event if task else None
    end = end or End("", "")
    waits_for, _, waits_until = text(WAITING_FIELD).partition(" ")
    return Record(
        id=id_,
        status=status,
        reason=end.reason if text("status") in ("failed", "stopped") else "",
        kind=event.kind if event else "",
        repo=event.repo if event else "",
        ref=event.ref if event else "",
        sha=event.sha if event else "",
        number=event.number if isinstance(event, PullRequest) else None,
        source=task.source if task else "",
        delivery=task.delivery if task else "",
        route=task.route if task else "",
        target=task.target if task else "",
        attempts=int(text(ATTEMPTS_FIELD) or 0) if kind == "deploy" else runs,
        created_at=text("created_at"),
        ended_at="" if status in ACTIVE else text("ended_at"),
        waits_for=waits_for if status == "waiting" else "",
        waits_until=waits_until if status == "waiting" else "",
        next_at=iso(due) if due is not None and status == "retrying" else "",
        deploys=text(DEPLOYS_FIELD).split(),
        superseded_by=str(end.value.get("superseded_by", "")) or text(SUPERSEDED_BY_FIELD),
        replay_of=text(REPLAY_OF_FIELD),
        replayed_by=text(REPLAYED_BY_FIELD),
        requested_by=text(REQUESTED_BY_FIELD),
        cancelled_by=text(CANCELLED_BY_FIELD),
        approved_by=text(APPROVED_BY_FIELD),
        stripped=stripped is not None,
    )


def record_fields(kind: Kind, record: Record) -> dict[str, Any]:
    """What a line of the audit about it says of it."""
    names = ("source", "kind", "repo", "ref", "sha")
    fields = {name: getattr(record, name) for name in names}
    if kind == "delivery":
        return {"delivery": record.id, **fields}
    return {
        "delivery": record.delivery,
        **fields,
        "deploy": record.id,
        "route": record.route,
        "target": record.target,
    }


def read_argument(data: bytes, of: type[T]) -> T | None:
    """What a job of ours is called with; None where that cannot be read."""
    # RQ compresses what it saves again.
    with suppress(zlib.error):
        data = zlib.decompressobj().decompress(data, _MOST_DATA)
    try:
        _, _, (argument,), _ = _plain(data)
        return msgspec.json.decode(argument, type=of)
    except (ValueError, TypeError):
        return None


def read_task(data: bytes | None, stripped: bytes | None) -> Task | None:
    """What a job of ours is called with, or is left of it; None where that cannot be read."""
    if stripped is None:
        return read_argument(data or b"", Task)
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(stripped, type=Task)
    return None


def left_of(data: bytes) -> bytes:
    """What is kept of a job's argument when its details are not: what lists and most filters tell
    of it. Empty where it cannot be read."""
    task = read_argument(data, Task)
    if task is None:
        return b""
    event = task.event
    short: Event
    if isinstance(event, PullRequest):
        short = PullRequest(
            *(event.repo, event.number, event.action, event.head_sha, event.head_ref, "", "")
        )
    else:
        before = event.before if event.deleted else ""
        after = "" if event.deleted else event.after
        short = Push(event.repo, event.ref, before, after, deleted=event.deleted)
    return msgspec.json.encode(msgspec.structs.replace(task, event=short))


def read_end(entry: tuple[bytes, Fields]) -> End:
    """The end that an entry of RQ's stream of results tells of."""
    number, fields = entry
    at = iso(int(number.partition(b"-")[0]) / 1000)
    try:
        how = Result.Type(int(fields[b"type"])).name.lower()
        reason, held = _reason(_unpacked(fields.get(b"exc_string", b"")))
    except (ValueError, KeyError, zlib.error):
        return End(at, "unreadable")
    value: Any = None
    try:
        data = b64decode(fields.get(b"return_value", b""))
        if how == "retried":
            # Its value, RQ's Retry, is no plain data.
            how = "waited" if ENDLESS in _numbers(data) else how
        else:
            value = _plain(data)
    except ValueError:
        pass
    return End(at, how, reason, held, value if isinstance(value, dict) else {})


def iso(epoch: float) -> str:
    """Seconds since the Unix epoch as RQ writes times."""
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def epoch(text: str) -> float:
    """Seconds since the Unix epoch of a time as RQ writes it; 0 of anything else."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0


_PLAIN = frozenset(
    {
        *("PROTO", "FRAME", "MARK", "STOP", "MEMOIZE", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    }
)
"""Steps of a pickle that make numbers, texts and containers of them. None calls anything, and none
asks for more memory than it brings, as PUT does with a large number."""


def _plain(data: bytes) -> Any:
    """Raises ValueError for what is no pickle of plain data."""
    try:
        is_plain = all(step.name in _PLAIN for step, _, _ in pickletools.genops(data))
        value = pickle.loads(data) if is_plain else None  # noqa: S301
    except Exception as error:
        raise ValueError(type(error).__name__) from None
    if not is_plain:
        raise ValueError("no plain data")
    return value


def _numbers(data: bytes) -> set[int]:
    """What numbers a pickle has, without loading it. Raises ValueError for what is no pickle."""
    try:
        return {value for _, value, _ in pickletools.genops(data) if isinstance(value, int)}
    except Exception as error:
        raise ValueError(type(error).__name__) from None


def _unpacked(text: bytes) -> str:
    if not text:
        return ""
    return zlib.decompressobj().decompress(b64decode(text), _MOST_DATA).decode(errors="replace")


def _reason(traceback: str) -> tuple[str, bool]:
    """Why a run failed, and whether the deploy is held. Of an error that is not ours only the name:
    what else it says, nobody has looked at."""
    line = traceback.strip().rpartition("\n")[2]
    name, _, text = line.partition(": ")
    if name.startswith("workers.errors."):
        return text[:_MOST_REASON], name == HELD_ERROR
    if _ABANDONED in line:
        return "the worker that ran it has not been heard of any more", False
    if line == STOPPED:
        return line, False
    if not _NAME.fullmatch(name):
        return "", False
    return f"internal error ({name.rpartition('.')[2]})", False
