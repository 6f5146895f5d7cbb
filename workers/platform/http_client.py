"""Makes one deploy call over HTTP, bounded in time and bytes. The only place that calls out."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, IPv6Network

import aiohttp
from aiohttp import AddrInfoType, hdrs
from yarl import URL

from config.networks import parse_address
from relay import __version__
from relay.planning import Call
from workers.errors import CallFailed, DeployFailed
from workers.platform.allowed_addresses import refusal
from workers.platform.response import Answer

USER_AGENT = f"deploy-relay/{__version__}"

MAX_ANSWER = 65_536
"""Bytes of an answer that are read; the rest is left unread."""

MAX_REDIRECTS = 3

KEEP_ALIVE = 4
"""Seconds that an idle connection is kept. Servers close theirs after 5 or more; a request on a
connection that closes meanwhile would be uncertain."""

_SAFE_METHODS = frozenset({"GET", "HEAD"})

_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)
"""What aiohttp raises before it has sent a byte of a request: no address, no connection, no TLS.
https://github.com/aio-libs/aiohttp/blob/v3.14.0/aiohttp/client.py"""


class PlatformClient:
    """Calls deploy hooks through one connection pool."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(
        self, call: Call, *, idempotency_key: str, total: float, connect: float
    ) -> Answer:
        """Make the call and return the platform's answer, whatever its status.

        ``total`` bounds the whole call and ``connect`` the connection, in seconds. Raises
        CallFailed where no complete answer came, DeployFailed where the URL cannot be called or
        its address is not allowed. A failure that cannot be told from one after the request was
        sent counts as uncertain.
        """
        headers = {
            **call.headers,
            hdrs.USER_AGENT: USER_AGENT,
            hdrs.ACCEPT_ENCODING: "identity",
            "Idempotency-Key": idempotency_key,
        }
        limits = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect)
        try:
            async with asyncio.timeout(total):
                return await self._follow(call, headers, limits)
        except aiohttp.InvalidURL:
            raise DeployFailed(_NO_URL) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
            if isinstance(cause, _Refused):
                raise DeployFailed(cause.why) from None
            raise CallFailed(_reason(error), uncertain=not isinstance(error, _UNSENT)) from None

    async def _follow(
        self, call: Call, headers: Mapping[str, str], limits: aiohttp.ClientTimeout
    ) -> Answer:
        url = _url(call.url)
        for redirects in range(MAX_REDIRECTS + 1):
            try:
                async with self._session.request(
                    call.method,
                    url,
                    headers=headers,
                    data=call.body,
                    timeout=limits,
                    allow_redirects=False,
                ) as response:
                    onward = _redirect(call.method, url, response)
                    if onward is None:
                        body = await _read(response.content)
                        return Answer(response.status, response.headers, body)
                    url = onward
            except _UNSENT as error:
                if not redirects:
                    raise
                # A server that redirects may have deployed and point to where that can be seen.
                raise CallFailed(_reason(error), uncertain=True) from None
        raise DeployFailed(f"more than {MAX_REDIRECTS} redirects")


@asynccontextmanager
async def open_client(
    allowed: Sequence[IPv4Network | IPv6Network] = (),
) -> AsyncIterator[PlatformClient]:
    """Yield a client. The caller bounds the number of calls at one time.

    ``allowed`` are networks that are called though they are not public.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE, socket_factory=_only_to(allowed)
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        # aiohttp would repeat a GET whose connection broke before the answer. The platform may have
        # taken the first one, and a GET of a deploy hook deploys.
        # https://github.com/aio-libs/aiohttp/blob/v3.14.0/aiohttp/client.py
        session._retry_connection = False
        yield PlatformClient(session)


class _Refused(OSError):
    """A connection that is not made. All of them read the same: of several that are equal aiohttp
    passes the first one on, of several that differ none."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EACCES, "address not allowed")
        self.why = why


def _only_to(
    allowed: Sequence[IPv4Network | IPv6Network],
) -> Callable[[AddrInfoType], socket.socket]:
    """Makes the sockets of a connector, unless the address is not allowed.

    The IP address that is actually connected to is checked, so DNS rebinding does not help, and
    neither does a URL with an address in place of a name: aiohttp resolves names only.
    """

    def open_socket(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = info
        address = parse_address(str(where[0]))
        why = "not an address" if address is None else refusal(address, allowed)
        if why:
            raise _Refused(
                f"the target's address is refused: {why}; RELAY_ALLOWED_NETWORKS can allow it"
            )
        return socket.socket(family=family, type=kind, proto=protocol)

    return open_socket


_NO_URL = "the target's URL is not a URL"


def _url(text: str) -> URL:
    """Raises DeployFailed for what cannot be called, without quoting it."""
    try:
        url = URL(text, encoded=True)
        host = (url.host or "").encode("idna")
        port = url.port
    except ValueError:
        raise DeployFailed(_NO_URL) from None
    if not host or not port:
        raise DeployFailed(_NO_URL)
    return url


def _redirect(method: str, url: URL, response: aiohttp.ClientResponse) -> URL | None:
    """Return the URL of a redirect to the same server that keeps the request; else None."""
    keeps_request = response.status in (307, 308) or (
        response.status in (301, 302, 303) and method in _SAFE_METHODS
    )
    location = response.headers.get(hdrs.LOCATION)
    if not keeps_request or not location:
        return None
    try:
        onward = url.join(URL(location))
    except ValueError:
        return None
    return onward if onward.origin() == url.origin() else None


async def _read(stream: aiohttp.StreamReader) -> bytes:
    parts: list[bytes] = []
    left = MAX_ANSWER
    while left and (part := await stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _reason(error: Exception) -> str:
    """Return what happened, without quoting the URL."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "connection timed out"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "TLS certificate not accepted"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "TLS handshake failed"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "host name not found"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"connection failed: {error.os_error.strerror or 'no reason given'}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "server closed the connection without an answer"
    return f"call failed ({type(error).__name__})"
