"""Sessions of browsers: who logs in with a token gets a cookie, and forms a token against forgery.

A session is kept in Redis under a hash of its id, names the token it was opened with, and ends with
it. https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict
from typing import Any

import msgspec
from redis.asyncio import Redis

from relay import tokens
from relay.errors import TooManyLogins, Unauthenticated
from relay.http.limits import TokenBucket
from relay.tokens import Token

COOKIE = "relay_session"

LIFETIME = 43_200
"""Seconds after which who has logged in must do it again."""

TRIES, INTERVAL = 10, 60
"""Logins that may be tried from one address in so many seconds."""

MOST_ADDRESSES = 10_000
"""Addresses whose logins are counted; that which was quiet longest is forgotten."""

_PREFIX = "relay:session:"


class Session(msgspec.Struct, frozen=True):
    """A session that is open."""

    token: str
    """The id of the token it was opened with."""
    csrf: str
    """What a form must bring along; another site cannot know it."""


class Sessions:
    """The sessions of one Redis. Every method raises redis.exceptions.RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._tries: OrderedDict[str, TokenBucket] = OrderedDict()

    async def open(self, text: str, address: str) -> tuple[str, Token]:
        """A new session's id and its token. Raises Unauthenticated where ``text`` is no token, and
        TooManyLogins where that was tried too
        often from this address."""
        bucket = self._tries.setdefault(address, TokenBucket(TRIES, INTERVAL))
        self._tries.move_to_end(address)
        if len(self._tries) > MOST_ADDRESSES:
            self._tries.popitem(last=False)
        wait = bucket.take(time.monotonic())
        if wait:
            raise TooManyLogins(math.ceil(wait))
        token = await tokens.verify(self._redis, text)
        if token is None:
            raise Unauthenticated("this is no token, or it was revoked")
        id_ = secrets.token_urlsafe(32)
        session = Session(token.id, secrets.token_urlsafe(32))
        await self._redis.set(_key(id_), msgspec.json.encode(session), ex=LIFETIME)
        return id_, token

    async def find(self, id_: str) -> tuple[Session, Token] | None:
        """An open session and its token."""
        value: Any = await self._redis.get(_key(id_))
        if value is None:
            return None
        session = msgspec.json.decode(value, type=Session)
        token = await tokens.find(self._redis, session.token)
        return None if token is None else (session, token)

    async def close(self, id_: str) -> None:
        """End a session."""
        await self._redis.delete(_key(id_))


def is_csrf(session: Session, given: str) -> bool:
    """Whether a form brought along what it must."""
    return hmac.compare_digest(session.csrf.encode(), given.encode(errors="replace"))


def _key(id_: str) -> str:
    return _PREFIX + hashlib.sha256(id_.encode(errors="replace")).hexdigest()
