"""Who may use the console: tokens with a role, of which the ledger has only a hash.

A token is ``drt_<id>_<secret>``. The secret has 256 random bits, so that a plain SHA-256 of it is
safe to keep: nobody can try that many.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Literal, NamedTuple

import msgspec

from relay.ledger.records import iso
from relay.ledger.transaction import Reader, Row, Transaction

Role = Literal["viewer", "operator"]
"""A viewer looks, an operator also acts."""

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


async def create_token(tx: Transaction, name: str, role: Role) -> Created:
    """Keep a new token and return it."""
    id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    kept = {"id": id_, "name": name, "role": role, "sha256": _hashed(secret), "now": tx.now}
    await tx.run("insert_token", kept)
    token = Token(id=id_, name=name, role=role, created_at=iso(tx.now))
    return Created(token, f"drt_{id_}_{secret}")


async def verify_token(reader: Reader, text: str) -> Token | None:
    """Return the token that ``text`` is; None of any other text."""
    parts = _TOKEN.fullmatch(text)
    row = await reader.row("token", {"id": parts[1]}) if parts else None
    if parts is None or row is None or not hmac.compare_digest(row["sha256"], _hashed(parts[2])):
        return None
    return token_of(row)


async def revoke_token(tx: Transaction, id_: str) -> bool:
    """Delete a token and its sessions; return False where there is none."""
    return await tx.run("delete_token", {"id": id_}) > 0


def token_of(row: Row) -> Token:
    """Return a row of the table ``token``."""
    return Token(
        id=row["id"], name=row["name"], role=row["role"], created_at=iso(row["created_at"])
    )


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
