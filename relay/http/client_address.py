"""Who is really at the other end of a connection that a proxy may have passed on. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from config.networks import Address, is_within, parse_address

PEERS_REMEMBERED = 4_096
"""Addresses that are not parsed again: the same few servers send over and over."""


class Client(NamedTuple):
    """Who sent a request."""

    address: Address | None
    """None where nobody can tell."""
    text: str
    """The address as people read it; that of the connection where nobody can tell."""


class ClientAddresses:
    """The addresses of clients behind the same trusted proxies."""

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._trusted = trusted
        self._direct = functools.lru_cache(PEERS_REMEMBERED)(self._of_direct)

    def client(self, peer: str, forwarded: Sequence[str]) -> Client:
        """Return who sent a request; see ``client_address``."""
        if not forwarded:
            return self._direct(peer)
        return _client(peer, client_address(peer, forwarded, self._trusted))

    def _of_direct(self, peer: str) -> Client:
        return _client(peer, client_address(peer, (), self._trusted))


def _client(peer: str, address: Address | None) -> Client:
    return Client(address, peer if address is None else str(address))


def client_address(
    peer: str, forwarded: Iterable[str], trusted: Sequence[IPv4Network | IPv6Network]
) -> Address | None:
    """The right-most address that is not a trusted proxy's; None where nobody can tell.

    ``peer`` is the address at the other end of the connection, ``forwarded`` the values of all
    X-Forwarded-For headers in their order. Every proxy adds, on the right, the address that it was
    called from, so an entry is worth as much as the proxy whose entry stands on the right of it;
    what senders made up stands on the left. Entries may carry a port. Forwarded (RFC 7239) is not
    looked at: a proxy that adds one of the two passes the other one on as it came.
    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/X-Forwarded-For
    """
    address = parse_address(peer)
    if address is None or not is_within(address, trusted):
        return address
    for entry in reversed(",".join(forwarded).split(",")):
        if not entry.strip():
            continue
        address = parse_address(_without_port(entry.strip()))
        if address is None or not is_within(address, trusted):
            return address
    return address


def _without_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, port = entry.rpartition(":")
    return host if colon and "." in host and port.isdigit() else entry
