"""What every provider offers. A provider does no I/O and keeps no state but its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from relay.events.event import Event, Ignored

Headers = Mapping[str, str]
"""Request headers; lookups ignore case (aiohttp's ``CIMultiDict`` and its proxy do)."""

ReadsFiles = Callable[[str], bool]
"""Whether any route looks at the changed files of pushes to this repository.

The lists of changed files are most of a large push. Where nobody asks for them they are left
unread, and the event says ``files_complete=False``.
"""


def always(_: str) -> bool:
    """The changed files are wanted, whatever the repository."""
    return True


class Provider(Protocol):
    """How one kind of git server signs its webhooks and what they say.

    An instance belongs to one source and holds that source's keys.
    """

    name: ClassVar[str]
    """The word for it in relay.yaml, such as ``github``."""

    keeps_delivery_id: ClassVar[bool]
    """Whether a delivery that the server sends again has the id that it had before."""

    def __init__(
        self, secrets: Sequence[str], signing_tokens: Sequence[str] = (), tolerance: float = 300
    ) -> None:
        """Prepare the keys; any one of them may sign.

        ``tolerance`` is how many seconds a signed timestamp may be away from now.
        Raises ValueError where there is no usable key, without quoting any.
        """

    def require(self, headers: Headers) -> None:
        """Refuse a request whose body need not be read, because no body could make it good: what
        must vouch for it is missing from the headers. Raises relay.errors.Unauthorized.
        """

    def verify(self, headers: Headers, body: bytes, now: float) -> str:
        """Return a fingerprint of these raw bytes, for which one of the keys vouches.

        It is hexadecimal digits, and equal for equal bodies that one key vouches for. Where a
        signature covers the body and nothing else, it is taken from that, which saves hashing
        twice.
        ``now`` is seconds since the Unix epoch. Raises relay.errors.Unauthorized.
        """

    def delivery_id(self, headers: Headers) -> str:
        """Return the sender's own id of this delivery; empty if it sent none.

        It is for headers that ``verify`` accepted with their body. Where the provider signs an id,
        it is the signed one, and no other header takes its place.
        """

    def parse(
        self, headers: Headers, body: bytes, reads_files: ReadsFiles = always
    ) -> Event | Ignored:
        """Translate verified bytes. Raises relay.errors.Malformed."""

    def sign(self, body: bytes, kind: str, delivery_id: str, now: float) -> dict[str, str]:
        """Headers this provider would send with ``body``, signed with the first key.

        ``kind`` is ``push``, ``tag`` or ``pull_request``.
        """
