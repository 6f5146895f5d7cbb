"""Whose address counts behind proxies."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.networks import is_within, parse_address
from relay.http.client_address import client_address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not a proxy: anybody can write that
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.7, 198.51.100.1"], "198.51.100.1"),  # the sender made up the left
        ("10.0.0.1", ["192.0.2.7", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1", "10.0.0.2,fd00::2 "], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("fd00::1", ["[2001:db8::1]"], "2001:db8::1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], None),
        ("10.0.0.1", ["198.51.100.1, _hidden, 10.0.0.2"], None),
        ("10.0.0.1", [", ,"], "10.0.0.1"),
        ("", ["198.51.100.1"], None),
    ],
)
def test_the_right_most_that_is_no_trusted_proxy(
    peer: str, forwarded: list[str], client: str | None
) -> None:
    found = client_address(peer, forwarded, TRUSTED)

    assert (None if found is None else str(found)) == client


@given(peer=st.text(), forwarded=st.lists(st.text()))
def test_nothing_raises(peer: str, forwarded: list[str]) -> None:
    client_address(peer, forwarded, TRUSTED)


@given(made_up=st.lists(st.text()), client=st.ip_addresses())
def test_what_the_sender_makes_up_does_not_count(made_up: list[str], client: object) -> None:
    true = parse_address(str(client))
    assert true is not None
    if not is_within(true, TRUSTED):
        assert client_address("10.0.0.1", [*made_up, f"{client}, 10.0.0.2"], TRUSTED) == true
