"""Payloads whose headers were not kept are recognised by their fields."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.errors import Malformed
from relay.events.event import Ignored
from relay.providers import PROVIDERS
from relay.providers.detect import event_header
from relay.samples import sample

HEADERS = {
    "github": "X-GitHub-Event",
    "gitlab": "X-Gitlab-Event",
    "gitea": "X-Gitea-Event",
    "forgejo": "X-Forgejo-Event",
    "gogs": "X-Gogs-Event",
}
every_provider = pytest.mark.parametrize("provider", PROVIDERS)


@every_provider
def test_an_event_that_is_given_is_kept(provider: str) -> None:
    assert event_header(provider, b"not read", "star") == {HEADERS[provider]: "star"}


@every_provider
@pytest.mark.parametrize("kind", ["push", "tag", "pull_request"])
def test_samples_are_recognised_as_what_they_are(provider: str, kind: str) -> None:
    body = msgspec.json.encode(sample(provider, kind))
    headers = CIMultiDict(event_header(provider, body, None))
    event = PROVIDERS[provider](["secret"]).parse(headers, body)
    assert not isinstance(event, Ignored)
    assert event.kind == kind


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        ({"pull_request": {}, "after": "a", "ref": "b"}, "pull_request"),
        ({"ref": "refs/heads/main", "after": "a"}, "push"),
        ({"ref": "topic", "ref_type": "branch"}, "delete"),
        ({"ref": "topic", "ref_type": "branch", "master_branch": "main"}, "create"),
        ({"ref": "topic", "ref_type": "branch", "sha": "a"}, "create"),
        ({"zen": "Keep it simple"}, "ping"),
        ({"ref": "topic"}, "unknown"),
        ({}, "unknown"),
    ],
)
@pytest.mark.parametrize("provider", ["github", "gitea", "forgejo", "gogs"])
def test_fields_of_githubs_family(provider: str, fields: dict[str, Any], event: str) -> None:
    body = json.dumps(fields).encode()
    assert event_header(provider, body, None) == {HEADERS[provider]: event}


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        ({"object_kind": "push"}, "Push Hook"),
        ({"object_kind": "tag_push"}, "Tag Push Hook"),
        ({"object_kind": "merge_request"}, "Merge Request Hook"),
        ({"object_kind": "pipeline"}, "pipeline"),
        ({"object_kind": 7}, "7"),
        ({}, "unknown"),
    ],
)
def test_fields_of_gitlab(fields: dict[str, Any], event: str) -> None:
    body = json.dumps(fields).encode()
    assert event_header("gitlab", body, None) == {"X-Gitlab-Event": event}


@every_provider
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"7", b"null", b"{", b'{"zen": NaN}', b'{"zen": "\xff"}', b'{"\xff": 1}']
    + [b'{"a": ' + bracket * 100_000 for bracket in (b"[", b'{"a": ')],
    ids=lambda body: ascii(body[:16]),
)
def test_what_is_no_object_is_malformed(provider: str, body: bytes) -> None:
    with pytest.raises(Malformed, match="not a JSON object"):
        event_header(provider, body, None)


@every_provider
@given(body=st.binary(max_size=100))
def test_any_bytes_are_recognised_or_malformed(provider: str, body: bytes) -> None:
    try:
        [name] = event_header(provider, body, None)
    except Malformed:
        return
    assert name == HEADERS[provider]
