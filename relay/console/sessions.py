"""Logging in to the console: tokens, sessions of browsers, and how often a login may be tried.

https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html
"""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict

from relay import tokens
from relay.errors import TooManyLogins, Unauthenticated
from relay.http.limits import TokenBucket
from relay.ledger.ledger import Ledger
from relay.ledger.sessions import Session, close_session, find_session, open_session
from relay.ledger.transaction import Reader
from relay.tokens import Token

COOKIE = "relay_session"

LIFETIME = 43_200
"""Seconds after which a person has to log in again."""

TRIES, INTERVAL = 10, 60
"""Logins that may be tried from one address in so many seconds."""

MOST_ADDRESSES = 10_000
"""Addresses whose logins are counted; that which was quiet longest is forgotten."""


class Sessions:
    """The tokens and sessions of one ledger. Every method raises LedgerUnavailable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tries: OrderedDict[str, TokenBucket] = OrderedDict()

    async def verify(self, text: str) -> Token | None:
        """Return the token that ``text`` is; None of any other text."""
        return await self._ledger.glance(lambda reader: tokens.verify(reader, text))

    async def open(self, text: str, address: str) -> str:
        """Return the id of a new session. Raises Unauthenticated where ``text`` is no token, and
        TooManyLogins where that was tried too often from this address."""
        bucket = self._tries.setdefault(address, TokenBucket(TRIES, INTERVAL))
        self._tries.move_to_end(address)
        if len(self._tries) > MOST_ADDRESSES:
            self._tries.popitem(last=False)
        wait = bucket.take(time.monotonic())
        if wait:
            raise TooManyLogins(math.ceil(wait))
        token = await self.verify(text)
        if token is None:
            raise Unauthenticated("this is no token, or it was revoked")
        return await self._ledger.commit(lambda tx: open_session(tx, token.id, LIFETIME))

    async def find(self, id_: str) -> tuple[Session, Token] | None:
        """Return an open session and its token; None of any other id."""

        async def find(reader: Reader) -> tuple[Session, Token] | None:
            session = await find_session(reader, id_)
            token = await tokens.find(reader, session.token) if session is not None else None
            return (session, token) if session is not None and token is not None else None

        return await self._ledger.glance(find)

    async def close(self, id_: str) -> None:
        """End a session."""
        await self._ledger.commit(lambda tx: close_session(tx, id_))


def is_form_key(session: Session, given: str) -> bool:
    """Return whether a form brought along the key of its session."""
    return hmac.compare_digest(session.form_key.encode(), given.encode(errors="replace"))
