"""Who may use the console: tokens with a role, of which Redis has only a hash.

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
from typing import Any, Literal, NamedTuple, cast

import msgspec
import redis
import redis.asyncio

from relay.errors import TokenRefused, UnknownToken

KEY = "relay:tokens"
"""A hash: the id of each token, and what is known of it as JSON."""

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


class _Kept(msgspec.Struct, frozen=True):
    name: str
    role: Role
    sha256: str
    created_at: str


class Created(NamedTuple):
    """A new token, and the text that is shown once."""

    token: Token
    text: str


def create(client: redis.Redis, name: str, role: Role) -> Created:
    """A new token. Raises TokenRefused for a name that is none, or in use, and where there are too
    many tokens; redis.exceptions.RedisError."""
    if NAME.fullmatch(name) is None:
        raise TokenRefused(
            f"{name!r} is no name: letters, digits and . _ @ - are allowed, 64 at most"
        )
    known = tokens(client)
    if any(token.name == name for token in known):
        raise TokenRefused(f"there is a token named {name}: the audit could not tell them apart")
    if len(known) >= MOST:
        raise TokenRefused(f"there are {MOST} tokens already: revoke some")
    id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    client.hset(KEY, id_, msgspec.json.encode(_Kept(name, role, _hashed(secret), at)))
    return Created(Token(id=id_, name=name, role=role, created_at=at), f"drt_{id_}_{secret}")


def tokens(client: redis.Redis) -> Sequence[Token]:
    """All tokens, the oldest first. Raises redis.exceptions.RedisError."""
    kept = cast(dict[bytes, bytes], client.hgetall(KEY))
    listed = [_token(id_.decode(), value) for id_, value in kept.items()]
    return sorted(listed, key=lambda token: (token.created_at, token.id))


def revoke(client: redis.Redis, id_: str) -> Token:
    """Take a token away, and with it its sessions; returns what it was. Raises UnknownToken and
    redis.exceptions.RedisError."""
    with client.pipeline() as pipe:
        pipe.hget(KEY, id_)
        pipe.hdel(KEY, id_)
        value, _ = pipe.execute()
    if value is None:
        raise UnknownToken(f"no token has the id {id_!r}; see deploy-relay token list")
    return _token(id_, value)


async def verify(client: redis.asyncio.Redis, text: str) -> Token | None:
    """The token that ``text`` is, or None. Raises redis.exceptions.RedisError."""
    found = _TOKEN.fullmatch(text)
    if found is None:
        return None
    value: Any = await client.hget(KEY, found[1])
    if value is None:
        return None
    kept = msgspec.json.decode(value, type=_Kept)
    if not hmac.compare_digest(kept.sha256, _hashed(found[2])):
        return None
    return _token(found[1], value)


async def find(client: redis.asyncio.Redis, id_: str) -> Token | None:
    """The token with this id, unless it was revoked. Raises redis.exceptions.RedisError."""
    value: Any = await client.hget(KEY, id_)
    return None if value is None else _token(id_, value)


def _token(id_: str, value: bytes) -> Token:
    kept = msgspec.json.decode(value, type=_Kept)
    return Token(id=id_, name=kept.name, role=kept.role, created_at=kept.created_at)


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
