"""GitHub: X-Hub-Signature-256, and what its push and pull_request payloads become."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, get_args
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.errors import Malformed, Unauthorized
from relay.events.event import MAX_FILES, Action, Ignored, Person, PullRequest, Push
from relay.providers.github import MAX_COMMITS, GitHub

OLD, NEW = "a" * 40, "b" * 40
SECRET, NEXT_SECRET = "first-secret-é", "second-secret"
BODY = b'{"ref": "refs/heads/main"}'


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def refusal(headers: dict[str, str], body: bytes = BODY) -> str:
    with pytest.raises(Unauthorized) as caught:
        GitHub([SECRET, NEXT_SECRET]).verify(CIMultiDict(headers), body, 0)
    return caught.value.reason


def parse(event: str, fields: dict[str, Any]) -> Push | PullRequest | Ignored:
    return GitHub([SECRET]).parse(
        CIMultiDict({"x-github-event": event}), json.dumps(fields).encode()
    )


def commit(sha: str = NEW, **lists: list[str] | None) -> dict[str, Any]:
    author = {"name": "Ada", "email": "ada@example.com", "username": "ada"}
    paths: dict[str, Any] = {"added": [], "modified": [], "removed": []}
    return {"id": sha, "message": "Change", "author": author} | paths | lists


def push(**changes: Any) -> Push:
    fields = {
        "ref": "refs/heads/main",
        "before": OLD,
        "after": NEW,
        "repository": {"full_name": "acme/web"},
        "commits": [commit(modified=["a.txt"])],
        "head_commit": commit(),
        "sender": {"login": "bob"},
    }
    event = parse("push", fields | changes)
    assert isinstance(event, Push)
    return event


def pull(action: str = "opened", **changes: Any) -> PullRequest | Ignored:
    request = {
        "title": "Better",
        "user": {"login": "ada"},
        "head": {"ref": "topic", "sha": NEW, "repo": {"full_name": "acme/web"}},
        "base": {"ref": "main", "sha": OLD, "repo": {"full_name": "acme/web"}},
    }
    fields = {
        "action": action,
        "number": 7,
        "pull_request": request | changes,
        "repository": {"full_name": "acme/web"},
        "sender": {"login": "bob"},
    }
    event = parse("pull_request", fields)
    assert not isinstance(event, Push)
    return event


def request_of(action: str = "opened", **changes: Any) -> PullRequest:
    event = pull(action, **changes)
    assert isinstance(event, PullRequest)
    return event


def test_the_documented_example_is_accepted_and_only_with_its_body() -> None:
    github = GitHub(["It's a Secret to Everybody"])
    sent = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = CIMultiDict({"X-Hub-Signature-256": f"sha256={sent}"})
    github.verify(headers, b"Hello, World!", 0)
    with pytest.raises(Unauthorized):
        github.verify(headers, b"Hello, World?", 0)


@pytest.mark.parametrize("secret", [SECRET, NEXT_SECRET])
def test_any_configured_secret_may_sign(secret: str) -> None:
    headers = CIMultiDict({"x-hub-signature-256": signature(BODY, secret)})
    GitHub([SECRET, NEXT_SECRET]).verify(headers, BODY, 0)


def test_another_secret_may_not_and_the_reason_tells_neither() -> None:
    sent = signature(BODY, "a-stranger's")
    reason = refusal({"X-Hub-Signature-256": sent})
    assert "no configured secret" in reason
    assert not any(hidden in reason for hidden in (SECRET, NEXT_SECRET, sent[7:]))


def test_a_missing_header_is_named() -> None:
    assert "X-Hub-Signature-256 is missing" in refusal({})


def test_sha1_alone_is_refused_by_name() -> None:
    sent = hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    reason = refusal({"X-Hub-Signature": f"sha1={sent}"})
    assert "SHA-1" in reason
    assert sent not in reason


@pytest.mark.parametrize(
    "sent",
    ["", "sha256=", "sha256=ab", "z" * 64, "é" * 64, "\udcff" * 64, "٣" * 64, signature(BODY)[:-2]],
    ids=ascii,
)
def test_what_is_no_signature_is_refused(sent: str) -> None:
    assert "no configured secret" in refusal({"X-Hub-Signature-256": sent})


def test_a_sha1_digest_under_the_new_name_is_refused() -> None:
    sent = hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    refusal({"X-Hub-Signature-256": f"sha1={sent}"})


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_byte_is_refused(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    flip = data.draw(st.integers(1, 255))
    tampered = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
    headers = {"X-Hub-Signature-256": signature(body)}
    GitHub([SECRET]).verify(CIMultiDict(headers), body, 0)
    refusal(headers, tampered)


@pytest.mark.parametrize(
    ("secrets", "tokens"),
    [([], []), ([""], []), (["good", "  "], []), (["good"], ["whsec_" + "A" * 32])],
)
def test_unusable_keys_are_refused(secrets: list[str], tokens: list[str]) -> None:
    with pytest.raises(ValueError, match=r"secret") as caught:
        GitHub(secrets, tokens)
    assert "good" not in str(caught.value)
    assert "AAAA" not in str(caught.value)


def test_the_delivery_id() -> None:
    github = GitHub([SECRET])
    assert github.delivery_id(CIMultiDict({"x-github-delivery": "one"})) == "one"
    assert github.delivery_id(CIMultiDict()) == ""


def test_a_push_to_a_branch() -> None:
    commits = [
        commit(OLD, added=["new"], modified=["both"]),
        commit(modified=["both"], removed=["gone"]),
    ]
    assert push(commits=commits) == Push(
        repo="acme/web",
        ref="refs/heads/main",
        before=OLD,
        after=NEW,
        files=("new", "both", "both", "gone"),
        message="Change",
        author=Person("Ada", "ada@example.com", "ada"),
        sender="bob",
    )


def test_a_tag() -> None:
    event = push(ref="refs/tags/v1", before="0" * 40, created=True)
    assert (event.kind, event.tag, event.branch, event.created) == ("tag", "v1", "", True)


@pytest.mark.parametrize("zeros", ["0" * 40, "0" * 64])
def test_zeros_mean_created_and_deleted(zeros: str) -> None:
    assert push(before=zeros).created
    event = push(after=zeros, head_commit=None, commits=[])
    assert (event.kind, event.deleted, event.sha) == ("delete", True, OLD)
    assert not push().created
    assert not push().deleted


@pytest.mark.parametrize(
    "changes",
    [
        {"created": True},
        {"forced": True},
        {"deleted": True},
        {"commits": []},
        {"commits": None},
        {"commits": [commit()] * MAX_COMMITS},
        {"commits": [commit(added=None)]},
        {"commits": [commit(), commit(removed=None)]},
        {"commits": [commit(added=[str(n) for n in range(MAX_FILES + 1)])]},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_files_that_may_be_left_out(changes: dict[str, Any]) -> None:
    assert push().files_complete
    event = push(**changes)
    assert not event.files_complete
    assert len(event.files) <= MAX_FILES
    assert event.forced == ("forced" in changes)


@pytest.mark.parametrize("action", get_args(Action))
def test_the_actions_keep_their_names(action: Action) -> None:
    assert request_of(action).action == action


@pytest.mark.parametrize("action", ["assigned", "locked", "review_requested", "x" * 500])
def test_other_actions_are_ignored_with_a_reason(action: str) -> None:
    event = pull(action)
    assert isinstance(event, Ignored)
    assert action[:64] in event.reason
    assert len(event.reason) < 120


def test_a_pull_request() -> None:
    assert request_of(labels=[{"name": "preview"}, {"name": "ui"}], draft=True) == PullRequest(
        repo="acme/web",
        number=7,
        action="opened",
        head_sha=NEW,
        head_ref="topic",
        head_repo="acme/web",
        base_ref="main",
        title="Better",
        draft=True,
        labels=("preview", "ui"),
        author=Person(login="ada"),
        sender="bob",
    )


def test_closed_is_not_yet_merged() -> None:
    assert not request_of("closed", merged=False).merged
    assert request_of("closed", merged=True).merged


@pytest.mark.parametrize(
    ("repo", "name", "fork"),
    [
        (None, "", True),
        ({"full_name": "eve/web"}, "eve/web", True),
        ({"full_name": "Acme/Web"}, "Acme/Web", False),
    ],
)
def test_forks(repo: dict[str, str] | None, name: str, fork: bool) -> None:
    event = request_of(head={"ref": "main", "sha": NEW, "repo": repo})
    assert (event.head_repo, event.fork) == (name, fork)


@pytest.mark.parametrize(
    ("event", "word"), [("ping", "ping"), ("create", "push"), ("delete", "push"), ("star", "star")]
)
def test_other_events_are_ignored_with_a_reason(event: str, word: str) -> None:
    ignored = parse(event, {})
    assert isinstance(ignored, Ignored)
    assert word in ignored.reason


def test_a_missing_event_header_is_malformed() -> None:
    with pytest.raises(Malformed, match="X-GitHub-Event"):
        GitHub([SECRET]).parse(CIMultiDict(), b"{}")


def test_a_form_is_read_as_its_payload() -> None:
    fields = {
        "ref": "refs/heads/été",
        "before": OLD,
        "after": NEW,
        "repository": {"full_name": "a/b"},
    }
    headers = CIMultiDict(
        {"X-GitHub-Event": "push", "Content-Type": "application/x-www-form-urlencoded"}
    )
    body = urlencode({"payload": json.dumps(fields, ensure_ascii=False)}).encode()
    event = GitHub([SECRET]).parse(headers, body)
    assert isinstance(event, Push)
    assert event.branch == "été"
