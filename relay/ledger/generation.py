"""Whether the ledger went back in time: restored from a backup, or replaced by another one.

Each commit that adds a delivery, a deploy, a call or an action makes the ledger's generation grow.
Marks outside of the database say how far it was: a file beside it, a key in Redis, and the ids that
the audit names. If one of them is ahead, the ledger is behind: its deploys may have been called
since, so no call is made until a person accepts it. Numbers that were given out since are skipped,
so that no id means two things.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from relay.ledger.rows import seconds
from relay.ledger.transaction import Reader, Transaction

MARK_FILE = "ledger.mark"

_MARK_BYTES = 512
"""Size of the mark file: one sector, so that it is written as a whole."""

Outside = Literal["file", "redis", "audit"]
"""Where something ahead of the ledger was found."""


class LastIds(msgspec.Struct, frozen=True):
    """The last number of each kind of id."""

    delivery: int = 0
    deploy: int = 0
    notice: int = 0
    action: int = 0

    def is_beyond(self, other: LastIds) -> bool:
        """Return whether a number of these was not given out when ``other`` were the last ones."""
        pairs = zip(_values(self), _values(other), strict=True)
        return any(mine > theirs for mine, theirs in pairs)

    def united(self, other: LastIds) -> LastIds:
        """Return the larger number of each kind."""
        return LastIds(*map(max, _values(self), _values(other)))


class Mark(msgspec.Struct, frozen=True):
    """How far a ledger has come."""

    instance: str
    """The random name of the ledger."""
    generation: int
    ids: LastIds


class Behind(msgspec.Struct, frozen=True):
    """What is noted of a ledger that is behind."""

    at: float
    """When that was found, in seconds since the Unix epoch."""
    ahead: tuple[Outside, ...]
    """What was ahead of it."""
    before: LastIds
    """The last ids that the ledger itself had given out."""
    skipped: LastIds
    """The last ids that are known to have been given out."""
    instances: tuple[str, ...]
    """The ledgers that the marks are of."""
    acted_at: float = 0
    """When the newest action in it was done, in seconds since the Unix epoch."""


def redis_mark_key(queue: str) -> str:
    """Return the key of the mark in Redis."""
    return f"deploy-relay:ledger:{queue}"


def encode_mark(mark: Mark) -> bytes:
    """Return a mark as it is kept outside of the ledger."""
    return msgspec.json.encode(mark)


def decode_mark(data: bytes | str | None) -> Mark | None:
    """Return a mark that was kept outside; None where there is none, or none that can be read."""
    if not data:
        return None
    try:
        return msgspec.json.decode(data, type=Mark)
    except msgspec.DecodeError:
        return None


async def read_mark(reader: Reader) -> Mark:
    """Return how far the ledger has come."""
    row = await reader.row("instance_and_generation")
    assert row is not None  # noqa: S101 - the first migration writes both
    return Mark(row["instance"], row["generation"], await read_last_ids(reader))


async def read_last_ids(reader: Reader) -> LastIds:
    """Return the last ids that were given out."""
    return LastIds(**{row["name"]: row["number"] for row in await reader.rows("last_ids")})


async def read_behind(reader: Reader) -> Behind | None:
    """Return what is noted of this ledger, if it is behind."""
    row = await reader.row("ledger_fact", {"name": "behind"})
    return None if row is None else msgspec.json.decode(row["value"], type=Behind)


async def find_ahead(
    reader: Reader, marks: Mapping[Outside, Mark | None], audit_ids: LastIds
) -> tuple[Outside, ...]:
    """Return what is ahead of the ledger. ``marks`` and ``audit_ids`` must have been read before:
    a mark that another process writes meanwhile is not ahead of anything."""
    own = await read_mark(reader)
    ahead = [name for name, mark in marks.items() if mark and await _is_ahead(reader, mark, own)]
    if audit_ids.is_beyond(own.ids):
        ahead.append("audit")
    return tuple(ahead)


async def note_behind(
    tx: Transaction,
    marks: Mapping[Outside, Mark | None],
    audit_ids: LastIds,
    revoked_tokens: frozenset[str],
) -> Behind | None:
    """Note that the ledger is behind, skip the ids that were given out since, and take away tokens
    that were revoked. Return the note; None where it is not behind, or noted already."""
    if await read_behind(tx) is not None:
        return None
    ahead = await find_ahead(tx, marks, audit_ids)
    if not ahead:
        return None
    own = await read_mark(tx)
    skipped = audit_ids.united(own.ids)
    for mark in marks.values():
        skipped = skipped if mark is None else skipped.united(mark.ids)
    for kind, number in msgspec.structs.asdict(skipped).items():
        await tx.run("raise_last_id", {"kind": kind, "number": number})
    await tx.run_many("revoke_token", [{"token": token} for token in sorted(revoked_tokens)])
    action = await tx.row("newest_action")
    behind = Behind(
        at=seconds(tx.now),
        ahead=ahead,
        before=own.ids,
        skipped=skipped,
        instances=tuple(sorted({mark.instance for mark in marks.values() if mark})),
        acted_at=seconds(action["at"]) if action else 0,
    )
    value = msgspec.json.encode(behind).decode()
    await tx.run("write_ledger_fact", {"name": "behind", "value": value})
    return behind


def read_mark_file(folder: Path) -> Mark | None:
    """Return the mark beside the ledger; None where there is none, or none that can be read."""
    try:
        return decode_mark((folder / MARK_FILE).read_bytes()[:_MARK_BYTES])
    except OSError:
        return None


def write_mark_file(folder: Path, mark: Mark) -> None:
    """Write the mark beside the ledger. It is not synced: a power cut costs some seconds of it,
    and what a commit has is on the disk without it. Raises OSError."""
    file = os.open(folder / MARK_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, encode_mark(mark).ljust(_MARK_BYTES), 0)
    finally:
        os.close(file)


async def _is_ahead(reader: Reader, mark: Mark, own: Mark) -> bool:
    if mark.instance == own.instance:
        return mark.generation > own.generation
    ancestor = await reader.row("ledger_fact", {"name": f"ancestor {mark.instance}"})
    return ancestor is None


def _values(ids: LastIds) -> tuple[int, ...]:
    return msgspec.structs.astuple(ids)
