"""Which addresses a deploy call may go to. Pure.

Otherwise the author of relay.yaml, or a DNS server, could make the worker call what only this
machine or its network can reach: a database, a router, a cloud's metadata service.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from yarl import URL

from config.networks import Address, is_within, parse_address

_RANGES: Final = tuple(
    (ip_network(network), name)
    for network, name in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        # Azure's host answers to every machine here, though the address is a public one.
        # https://learn.microsoft.com/en-us/azure/virtual-network/what-is-ip-address-168-63-129-16
        ("168.63.129.16/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("3fff::/20", "reserved"),
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
"""https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry"""

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that has been given out of IPv6.
https://www.iana.org/assignments/ipv6-address-space"""

_IPV4_INSIDE: Final = (
    # Network, and the bits behind the IPv4 address that it holds.
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)


def refusal(address: Address, allowed: Sequence[IPv4Network | IPv6Network]) -> str:
    """Which range makes this address one that must not be called; empty if it may be.

    ``allowed`` are the networks that may be called whatever they are. An IPv6 address that stands
    for an IPv4 one is judged as that one.
    """
    if is_within(address, allowed):
        return ""
    for network, name in _RANGES:
        if address in network:
            return f"{name} ({network})"
    if isinstance(address, IPv4Address):
        return ""
    inside = _ipv4_inside(address)
    if inside is not None:
        return refusal(inside, allowed)
    return "" if address in _GLOBAL_UNICAST else "not global unicast (outside 2000::/3)"


def literal_refusal(url: str, allowed: Sequence[IPv4Network | IPv6Network]) -> str:
    """The same of a URL that has an address in it; empty if it has a name, or is no URL."""
    try:
        host = URL(url, encoded=True).host or ""
    except ValueError:
        return ""
    address = parse_address(host)
    return "" if address is None else refusal(address, allowed)


def _ipv4_inside(address: IPv6Address) -> IPv4Address | None:
    for network, bits in _IPV4_INSIDE:
        if address in network:
            return IPv4Address(int(address) >> bits & 0xFFFF_FFFF)
    return None
