"""Rows of the ledger as plain data, and the numbers in which the ledger counts time."""

from __future__ import annotations

from typing import cast

import msgspec

from relay.events.deploy_life import Status
from relay.events.event import Event
from relay.events.gate import TargetState
from relay.ledger.transaction import Row

MICROSECONDS = 1_000_000

_decode_event = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


def seconds(microseconds: int | None) -> float:
    """Return a time of the ledger in seconds since the Unix epoch; 0 for none."""
    return (microseconds or 0) / MICROSECONDS


def microseconds(seconds_: float) -> int:
    """Return a time in seconds since the Unix epoch as the ledger counts it."""
    return round(seconds_ * MICROSECONDS)


def encode_event(event: Event) -> str:
    """Return an event as the ledger keeps it."""
    return _encode(event).decode()


def decode_event(text: str) -> Event:
    """Return an event that the ledger kept."""
    return cast(Event, _decode_event(text))


class DeployLine(msgspec.Struct, frozen=True, kw_only=True):
    """A deploy, as far as each line of the audit names it."""

    id: int
    delivery: int
    source: str
    kind: str
    repo: str
    ref: str
    """``refs/heads/…`` or ``refs/tags/…``; of a pull request that of its head."""
    number: int
    """Of a pull request; 0 otherwise."""
    action: str
    sha: str
    sender: str
    author: str
    remote: str
    config: str
    route: str
    target: str
    attempt: int
    live: int
    """The deploy that is live on its target and ref, or was when this one was called; 0 for none.
    """


def request_number(row: Row) -> int:
    """Return the number of a row's pull request; 0 of anything else."""
    return int(row["ref_name"][1:]) if row["kind"] == "pull_request" else 0


def shown_ref(row: Row) -> str:
    """Return ``refs/heads/…`` or ``refs/tags/…`` of a row; of a pull request that of its head."""
    is_request = row["kind"] == "pull_request"
    return f"refs/heads/{row['branch']}" if is_request else str(row["ref_name"])


def deploy_line(row: Row) -> DeployLine:
    """Return a row of the queries ``deploy`` and ``claim_facts``."""
    return DeployLine(
        id=row["id"],
        delivery=row["delivery"],
        source=row["source"],
        kind=row["kind"],
        repo=row["repo"],
        ref=shown_ref(row),
        number=request_number(row),
        action=row["action"],
        sha=row["sha"],
        sender=row["sender"],
        author=row["author"],
        remote=row["remote"],
        config=row["config"],
        route=row["route"],
        target=row["target_name"],
        attempt=row["attempt"],
        live=row["live_then"] or 0,
    )


class Deploy(msgspec.Struct, frozen=True, kw_only=True):
    """A deploy that is about to be called: what its line names, and what the call needs."""

    line: DeployLine
    event: Event
    target_number: int
    ref_number: int
    status: Status
    received_at: float
    """Seconds since the Unix epoch, as all times here."""
    trace: str
    tries: int
    """Calls that count against ``retry.attempts``."""
    waits: str
    replay_of: int
    requested_by: str
    approved_by: str
    is_newest: bool
    """Its state is the newest one of its ref."""
    call_key: str
    idempotency_key: str
    """What the platform knows all its calls by."""


def target_state(row: Row) -> TargetState:
    """Return a row of the table ``target``, or one that has its columns."""
    return TargetState(
        name=row["target_name"],
        paused_at=seconds(row["paused_at"]),
        limited_until=seconds(row["limited_until"]),
        failures=row["failures"],
        opened=row["opened"],
        open_until=seconds(row["open_until"]),
    )
