"""Sessions of browsers, kept under a hash of their ids. A session ends with its token."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from relay.ledger.rows import MICROSECONDS
from relay.ledger.transaction import Reader, Transaction


class Session(NamedTuple):
    """A session that is open."""

    token: str
    """The id of the token that it was opened with."""
    form_key: str
    """What forms bring along; another site cannot know it."""


async def open_session(tx: Transaction, token: str, seconds: int) -> str:
    """Keep a new session of a token and return its id. Sessions that are over are deleted."""
    await tx.run("delete_old_sessions", {"now": tx.now})
    id_ = secrets.token_urlsafe(32)
    await tx.run(
        "insert_session",
        {
            "hash": _hashed(id_),
            "token": token,
            "form_key": secrets.token_urlsafe(32),
            "expires_at": tx.now + seconds * MICROSECONDS,
        },
    )
    return id_


async def find_session(reader: Reader, id_: str) -> Session | None:
    """Return a session that is open; None of any other id."""
    row = await reader.row("session", {"hash": _hashed(id_), "now": reader.now})
    return None if row is None else Session(row["token"], row["form_key"])


async def close_session(tx: Transaction, id_: str) -> None:
    """End a session."""
    await tx.run("delete_session", {"hash": _hashed(id_)})


def _hashed(id_: str) -> str:
    return hashlib.sha256(id_.encode(errors="replace")).hexdigest()
