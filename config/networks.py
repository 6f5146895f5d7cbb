"""Networks, as operators write them: in relay.yaml and in the settings."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

Address = IPv4Address | IPv6Address


def parse_network(value: Any) -> Any:
    """A network from text such as ``10.0.0.0/8``, ``2001:db8::/32`` or a single address.

    Raises ValueError for other text, and where bits are set that the network does not cover.
    """
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value.strip())
    except ValueError:
        raise ValueError(f"{value!r} is not a network such as 10.0.0.0/8 or fd00::/8") from None


Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(parse_network),
    WithJsonSchema({"type": "string"}),
]


def parse_address(text: str) -> Address | None:
    """An address, or None where the text is none. IPv4 inside IPv6 (``::ffff:``) becomes IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_within(address: Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether one of the networks has this address."""
    return any(address in network for network in networks)
