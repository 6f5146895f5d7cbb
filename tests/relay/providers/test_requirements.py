"""What is refused by its headers alone, and that no body could have made it good."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.errors import Unauthorized
from relay.providers import PROVIDERS

SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SOURCES: list[tuple[str, dict[str, Any]]] = [
    *((name, {"secrets": ["s"]}) for name in PROVIDERS),
    ("gitlab", {"secrets": [], "signing_tokens": [SIGNING]}),
    ("gitlab", {"secrets": ["s"], "signing_tokens": [SIGNING]}),
]


@pytest.mark.parametrize(("name", "keys"), SOURCES)
def test_unsigned_is_refused_with_the_same_reason_as_with_its_body(
    name: str, keys: dict[str, Any]
) -> None:
    provider = PROVIDERS[name](**keys)
    reasons = []
    for refuse in (provider.require, lambda headers: provider.verify(headers, b"{}", 0)):
        with pytest.raises(Unauthorized) as raised:
            refuse(CIMultiDict())
        reasons.append(raised.value.reason)

    assert reasons[0] == reasons[1]
    assert " is missing: " in reasons[0]


@pytest.mark.parametrize(("name", "keys"), SOURCES)
def test_what_its_provider_signs_is_not_refused(name: str, keys: dict[str, Any]) -> None:
    provider = PROVIDERS[name](**keys)

    provider.require(CIMultiDict(provider.sign(b"{}", "push", "id", 1)))


def test_a_wrong_token_needs_no_body() -> None:
    with pytest.raises(Unauthorized, match="none of the configured secrets"):
        PROVIDERS["gitlab"](["s"]).require(CIMultiDict({"X-Gitlab-Token": "t"}))


NAMES = st.sampled_from(
    [
        *("X-Hub-Signature-256", "X-Hub-Signature", "X-Gitea-Signature", "X-Forgejo-Signature"),
        *("X-Gogs-Signature", "X-Gitlab-Token", "webhook-signature", "webhook-timestamp"),
    ]
)


@pytest.mark.parametrize(("name", "keys"), SOURCES)
@given(headers=st.dictionaries(NAMES, st.text()), body=st.binary(max_size=20))
def test_whatever_is_refused_without_its_body_is_refused_with_it(
    name: str, keys: dict[str, Any], headers: dict[str, str], body: bytes
) -> None:
    provider = PROVIDERS[name](**keys)
    try:
        provider.require(CIMultiDict(headers))
    except Unauthorized:
        with pytest.raises(Unauthorized):
            provider.verify(CIMultiDict(headers), body, 0)
