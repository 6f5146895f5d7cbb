"""Which addresses may be called, and that nothing else is, whatever a name says."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import ResolveResult
from hypothesis import example, given
from hypothesis import strategies as st

from relay.planning import Call
from tests.harness import Target
from workers.errors import CallFailed, DeployFailed
from workers.platform.allowed_addresses import literal_refusal, refusal
from workers.platform.http_client import open_client

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0", "unspecified (0.0.0.0/8)"),  # noqa: S104
        ("10.1.2.3", "private (10.0.0.0/8)"),
        ("100.100.100.200", "carrier-grade NAT (100.64.0.0/10)"),
        ("127.0.0.1", "loopback (127.0.0.0/8)"),
        ("168.63.129.16", "cloud metadata (168.63.129.16/32)"),
        ("169.254.169.254", "link-local, where clouds keep their metadata (169.254.0.0/16)"),
        ("172.31.255.255", "private (172.16.0.0/12)"),
        ("192.0.0.192", "reserved (192.0.0.0/24)"),
        ("192.168.0.1", "private (192.168.0.0/16)"),
        ("224.0.0.1", "multicast (224.0.0.0/4)"),
        ("255.255.255.255", "reserved (240.0.0.0/4)"),
        ("::", "unspecified (::/128)"),
        ("::1", "loopback (::1/128)"),
        ("::ffff:169.254.169.254", "link-local, where clouds keep their metadata (169.254.0.0/16)"),
        ("::127.0.0.1", "loopback (127.0.0.0/8)"),
        ("64:ff9b::a00:1", "private (10.0.0.0/8)"),
        ("64:ff9b:1::1", "not global unicast (outside 2000::/3)"),
        ("2002:7f00:1::", "loopback (127.0.0.0/8)"),
        ("2001:0:1::", "reserved (2001::/23)"),
        ("fd00:ec2::254", "unique local (fc00::/7)"),
        ("fe80::1%eth0", "link-local (fe80::/10)"),
        ("fec0::1", "not global unicast (outside 2000::/3)"),
        ("ff02::1", "multicast (ff00::/8)"),
    ],
)
def test_what_is_refused_and_why(address: str, why: str) -> None:
    assert refusal(ip_address(address), ()) == why


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "9.255.255.255", "11.0.0.0", "172.32.0.1", "100.128.0.1", "2606:4700::1111"],
)
def test_what_is_public_may_be_called(address: str) -> None:
    assert refusal(ip_address(address), ()) == ""


@given(st.ip_addresses(v=4))
def test_nothing_that_python_calls_private_is_called(address: IPv4Address) -> None:
    if not address.is_global or address.is_multicast:
        assert refusal(address, ())
    for wrapped in (
        int(IPv6Address("::ffff:0:0")) | int(address),
        int(IPv6Address("64:ff9b::")) | int(address),
        int(IPv6Address("2002::")) | int(address) << 80,
    ):
        assert bool(refusal(IPv6Address(wrapped), ())) == bool(refusal(address, ()))


@given(st.ip_addresses(v=6))
@example(IPv6Address("2001:db8::1"))
@example(IPv6Address("3fff::1"))
def test_nothing_that_python_calls_private_is_called_over_ipv6(address: IPv6Address) -> None:
    # These stand for IPv4 addresses and are judged as those; releases of Python differ on them.
    stands_for_ipv4 = any(
        address in ip_network(network) for network in ("64:ff9b::/96", "2002::/16")
    )
    if not address.is_global or address.is_multicast:
        assert refusal(address, ()) or stands_for_ipv4


@given(st.ip_addresses())
def test_what_is_allowed_may_be_called(address: IPv4Address | IPv6Address) -> None:
    assert refusal(address, [ip_network(address)]) == ""
    assert refusal(address, [ip_network("0.0.0.0/0"), ip_network("::/0")]) == ""


def test_allowing_ipv4_allows_it_inside_ipv6() -> None:
    assert refusal(IPv6Address("64:ff9b::7f00:1"), LOOPBACK) == ""
    assert refusal(IPv6Address("64:ff9b::a00:1"), LOOPBACK) == "private (10.0.0.0/8)"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1:8080/x", "private (10.0.0.0/8)"),
        ("http://[::ffff:10.0.0.1]/x", "private (10.0.0.0/8)"),
        ("http://127.0.0.1/x", ""),
        ("https://example.com/10.0.0.1", ""),
        ("http://[::1", ""),
    ],
)
def test_addresses_in_urls(url: str, why: str) -> None:
    assert literal_refusal(url, LOOPBACK) == why


async def called(url: str, allowed: Sequence[Any] = ()) -> int:
    async with open_client(allowed) as client:
        call = Call("GET", url, {}, None)
        return (await client.call(call, idempotency_key="k", total=5, connect=2)).status


def look_up(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """What lookups answer from now on, one list of addresses after the other."""
    left = list(answers)

    async def resolve(_: object, host: str, port: int = 0, **__: Any) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in left.pop(0)
        ]

    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_a_loopback_target_is_refused_before_it_is_connected_to(
    target: Target, host: str
) -> None:
    with pytest.raises(DeployFailed) as raised:
        await called(f"{target.url.replace('127.0.0.1', host)}/secret-path")

    told = str(raised.value)
    assert told.startswith("the target's address is refused: loopback (")
    assert told.endswith("; RELAY_ALLOWED_NETWORKS can allow it")
    assert "secret-path" not in told
    assert target.calls == []


@pytest.mark.parametrize("number", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
async def test_other_spellings_of_an_address_are_refused_too(target: Target, number: str) -> None:
    with pytest.raises(DeployFailed):
        await called(target.url.replace("127.0.0.1", number))
    assert target.calls == []


async def test_an_allowed_target_is_called(target: Target) -> None:
    assert await called(target.url, LOOPBACK) == 200


async def test_a_name_that_changes_its_answer_is_refused(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    port = target.url.rpartition(":")[2]

    assert await called(f"http://deploy.example:{port}/", LOOPBACK) == 200
    with pytest.raises(DeployFailed, match=r"refused: link-local, .* \(169\.254\.0\.0/16\); "):
        await called(f"http://deploy.example:{port}/", LOOPBACK)


@pytest.mark.parametrize(
    "answer", [["127.0.0.1", "::1"], ["10.0.0.1", "10.0.0.2"], ["::1", "127.0.0.1", "fd00::1"]]
)
async def test_a_name_with_several_addresses_is_refused(
    monkeypatch: pytest.MonkeyPatch, answer: list[str]
) -> None:
    look_up(monkeypatch, answer)

    with pytest.raises(DeployFailed, match=r"^the target's address is refused: "):
        await called("http://deploy.example/")


async def test_of_several_addresses_only_an_allowed_one_is_connected_to(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up(monkeypatch, ["10.0.0.1", "127.0.0.1", "::1"])

    port = target.url.rpartition(":")[2]
    assert await called(f"http://deploy.example:{port}/", LOOPBACK) == 200


async def test_a_name_that_is_not_found_may_be_found_later() -> None:
    with pytest.raises(CallFailed, match=r"^host name not found$"):
        await called("http://nobody.invalid/")
