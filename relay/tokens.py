"""Who may use the console: tokens with a role, of which the ledger has only a hash.

A token is ``drt_<id>_<secret>``. The secret has 256 random bits, so that a plain SHA-256 of it is
safe to keep: nobody can try that many.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

from relay.errors import TokenRefused, UnknownToken
from relay.ledger.actions import note_action
from relay.ledger.rows import MICROSECONDS
from relay.ledger.transaction import Reader, Row, Transaction

MOST = 1_000
"""Tokens at a time."""

Role = Literal["viewer", "operator"]
"""A viewer looks, an operator also acts."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

_TOKEN = re.compile(r"drt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret."""

    id: str
    name: str
    role: Role
    created_at: str


class Created(NamedTuple):
    """A new token, and the text that is shown once."""

    token: Token
    text: str


async def create(tx: Transaction, name: str, role: Role) -> Created:
    """Make a token. Raises TokenRefused for a name that is none, or in use, and where there are too
    many tokens."""
    if NAME.fullmatch(name) is None:
        raise TokenRefused(
            f"{name!r} is no name: letters, digits and . _ @ - are allowed, 64 at most"
        )
    existing = await tokens(tx)
    if any(token.name == name for token in existing):
        raise TokenRefused(f"there is a token named {name}: the audit could not tell them apart")
    if len(existing) >= MOST:
        raise TokenRefused(f"there are {MOST} tokens already: revoke some")
    id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = {"id": id_, "name": name, "role": role, "sha256": _hashed(secret), "now": tx.now}
    await tx.run("insert_token", row)
    token = Token(id=id_, name=name, role=role, created_at=_moment(tx.now))
    return Created(token, f"drt_{id_}_{secret}")


async def tokens(reader: Reader) -> Sequence[Token]:
    """Return all tokens, the oldest first."""
    return [_token(row) for row in await reader.rows("tokens")]


async def revoke(tx: Transaction, id_: str, by: str) -> Token:
    """Delete a token, and with it its sessions, and return what it was. ``by`` is kept with the
    action. Raises UnknownToken."""
    token = await find(tx, id_)
    if token is None:
        raise UnknownToken(f"no token has the id {id_!r}; see deploy-relay token list")
    await tx.run("delete_token", {"id": id_})
    await note_action(tx, "revoke", id_, by, token.name)
    return token


async def verify(reader: Reader, text: str) -> Token | None:
    """Return the token that ``text`` is, or None."""
    parts = _TOKEN.fullmatch(text)
    if parts is None:
        return None
    row = await reader.row("token", {"id": parts[1]})
    if row is None or not hmac.compare_digest(row["sha256"], _hashed(parts[2])):
        return None
    return _token(row)


async def find(reader: Reader, id_: str) -> Token | None:
    """Return the token with this id, unless it was revoked."""
    row = await reader.row("token", {"id": id_})
    return None if row is None else _token(row)


def _token(row: Row) -> Token:
    created_at = _moment(row["created_at"])
    return Token(id=row["id"], name=row["name"], role=row["role"], created_at=created_at)


def _moment(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds // MICROSECONDS, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
