"""The errors of relay. Those that answer an HTTP request name its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.errors import RelayError


class Rejected(RelayError):
    """A request that is refused before anything is stored.

    ``answer`` goes to the sender and reveals nothing. ``reason`` goes to the audit and tells an
    operator what to do.
    """

    status = 400
    answer = "bad request"

    retry_after = 0
    """Seconds after which the sender should try again; 0 where that would not help."""

    about: Mapping[str, Any] = {}
    """Fields of the audit line about the delivery, as far as they are known."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Unauthorized(Rejected):
    """The signature or token is missing, wrong, or too old."""

    status = 401
    answer = "signature missing or wrong"


class NotFromHere(Rejected):
    """The sender's address is not in the source's networks."""

    status = 403
    answer = "not from this address"


class TooManyRequests(Rejected):
    """The source sends more than its rate."""

    status = 429
    answer = "too many requests"

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Overloaded(Rejected):
    """The memory for bodies is used up."""

    status = 503
    answer = "try again later"
    retry_after = 5


class Malformed(Rejected):
    """A verified body that is not what the provider documents."""

    status = 400
    answer = "body not understood"


class NotFound(Rejected):
    """No such path."""

    status = 404
    answer = "not found"


class MethodNotAllowed(Rejected):
    """Another method than the path has."""

    status = 405
    answer = "method not allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"method {method}, not {allowed}")
        self.allowed = allowed


class UnknownSource(Rejected):
    """No source of this name is configured."""

    status = 404
    answer = "unknown source"


class BodyBroken(Rejected):
    """The body ended early, or its chunked encoding is invalid."""

    status = 400
    answer = "body incomplete"


class ExpectationFailed(Rejected):
    """An Expect header that asks for something else than 100-continue."""

    status = 417
    answer = "expectation failed"


class BodyTooLarge(Rejected):
    """The body is longer than the configured limit."""

    status = 413
    answer = "body too large"


class BodyTooSlow(Rejected):
    """The body did not arrive within the time allowed for it."""

    status = 408
    answer = "body too slow"


class UnsupportedMediaType(Rejected):
    """The body is neither JSON nor a form, or it is compressed."""

    status = 415
    answer = "unsupported media type"


class Refused(RelayError):
    """The console refuses a request. The text is shown to the caller."""

    status = 400
    code = "bad_request"


class Unauthenticated(Refused):
    """There is no token or session, or it is unknown, revoked or expired."""

    status = 401
    code = "unauthenticated"


class Forbidden(Refused):
    """The role does not allow it, or the request does not come from one of our own pages."""

    status = 403
    code = "forbidden"


class NoSuchThing(Refused):
    """The resource does not exist, or retention has deleted it."""

    status = 404
    code = "not_found"


class NoSuchRecord(NoSuchThing):
    """The ledger has no delivery or deploy with an id."""

    def __init__(self, kind: str, id_: str) -> None:
        super().__init__(f"no {kind} has the id {id_}; retention may have deleted it")


class TooManyLogins(Refused):
    """Too many logins were tried from this address."""

    status = 429
    code = "too_many_logins"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many logins from here: try again in {retry_after} s")
        self.retry_after = retry_after


class UnknownToken(RelayError):
    """No token has this id."""


class TokenRefused(RelayError):
    """A token cannot be created."""


class CannotListen(RelayError):
    """The address to listen on is taken, is not this machine's, or needs more rights."""


class NoAuditFile(RelayError):
    """The audit file does not exist, or none is configured."""


class AuditUnreadable(RelayError):
    """The audit files cannot be read."""


class StoreUnavailable(RelayError):
    """Nothing can store a delivery at the moment; the sender should try again."""

    about: Mapping[str, Any] = {}
    """See Rejected."""


class LedgerUnavailable(StoreUnavailable):
    """The ledger takes nothing at the moment: its disk is full, its lock is held, or it is
    damaged."""


class LedgerUnusable(RelayError):
    """The ledger cannot be opened here, and waiting would not help."""


class FormerRelease(RelayError):
    """Deliveries of the release before wait, and this release does not read them."""


class LedgerNotBehind(RelayError):
    """There is nothing to accept: no mark is ahead of the ledger."""


class NoConnection(StoreUnavailable):
    """No connection to Redis can be opened."""


class AuditUnavailable(StoreUnavailable):
    """Standard output or the audit file takes no lines, so the action that they announce is not
    done."""
