"""The checks that the providers share, and each provider's own signature on a sample."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.errors import Unauthorized
from relay.events.event import Ignored
from relay.providers import PROVIDERS
from relay.providers.provider import Provider
from relay.providers.signatures import (
    HmacKeys,
    any_equal,
    checked_secrets,
    from_base64,
    from_hex,
)
from relay.samples import sample

NOW = 1_700_000_000.75
TOKEN = "whsec_" + "QUJD" * 8


def sources() -> list[tuple[str, Provider]]:
    made = [(name, provider(["one", "two"])) for name, provider in PROVIDERS.items()]
    gitlab = PROVIDERS["gitlab"]
    return [*made, ("gitlab", gitlab([], [TOKEN])), ("gitlab", gitlab(["one"], [TOKEN]))]


every_source = pytest.mark.parametrize(("provider", "source"), sources())
every_kind = pytest.mark.parametrize("kind", ["push", "tag", "pull_request"])


@every_source
@every_kind
def test_a_signed_sample_is_accepted_and_understood(
    provider: str, source: Provider, kind: str
) -> None:
    body = msgspec.json.encode(
        sample(provider, kind, repo="acme/web", branch="topic", sha="c" * 40)
    )
    headers = CIMultiDict(source.sign(body, kind, "delivery-1", NOW))
    source.verify(headers, body, NOW)
    assert source.delivery_id(headers) == "delivery-1"
    event = source.parse(headers, body)
    assert not isinstance(event, Ignored)
    wanted = f"refs/{'tags' if kind == 'tag' else 'heads'}/topic"
    assert (event.kind, event.repo, event.ref) == (kind, "acme/web", wanted)
    assert event.sha == "c" * 40


@every_source
def test_what_one_source_signs_another_refuses(provider: str, source: Provider) -> None:
    headers = CIMultiDict(source.sign(b"{}", "push", "delivery-1", NOW))
    stranger = PROVIDERS[provider](
        ["three"], ["whsec_" + "REVG" * 8] if provider == "gitlab" else []
    )
    source.verify(headers, b"{}", NOW)
    with pytest.raises(Unauthorized):
        stranger.verify(headers, b"{}", NOW)


@given(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=3), st.binary())
def test_digests_are_hmac_sha256_of_the_joined_parts(keys: list[bytes], body: bytes) -> None:
    made = HmacKeys(keys)
    wanted = [hmac.new(key, b"id." + body, hashlib.sha256).digest() for key in keys]
    assert made.digests(b"id.", body) == wanted
    assert made.digests(b"id.", body) == wanted, "the prepared state was used up"
    for digest in wanted:
        assert made.vouch([b"", digest], b"id.", body)
        assert not made.vouch([digest[:-1], digest + b"x"], b"id.", body)


def test_nothing_vouches_without_a_signature_or_a_key() -> None:
    assert not HmacKeys([b"key"]).vouch([], b"body")
    assert not HmacKeys([b"key"]).vouch([b""], b"body")
    assert not HmacKeys([]).vouch([hmac.new(b"", b"body", hashlib.sha256).digest()], b"body")


@given(st.text())
def test_decoding_a_signature_never_fails(text: str) -> None:
    assert len(from_hex(text)) in range(33)
    assert len(from_base64(text)) <= len(text)


def test_decoding_a_signature() -> None:
    assert from_hex("0aFF" * 16) == b"\x0a\xff" * 16
    assert from_hex("0aff" * 16 + "00") == b""
    assert from_hex("0aff" * 15) == b""
    assert from_base64("AQI=") == b"\x01\x02"
    assert from_base64("AQ I=") == b""
    assert from_base64("AQI") == b""


def test_any_equal() -> None:
    secrets = checked_secrets(["one", "zwölf"])
    assert any_equal(secrets, "one")
    assert any_equal(secrets, "zwölf")
    assert any_equal(secrets, "zwölf".encode().decode("ascii", "surrogateescape"))
    assert not any_equal(secrets, "on")
    assert not any_equal(secrets, "")
    assert not any_equal([], "")


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_blank_secrets(blank: str) -> None:
    with pytest.raises(ValueError, match="empty secret") as caught:
        checked_secrets(["good", blank])
    assert "good" not in str(caught.value)
