"""Gitea, Forgejo and Gogs: one signature under three names, and what their payloads become."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.errors import Malformed, Unauthorized
from relay.events.event import Ignored, Person, PullRequest, Push
from relay.providers.forgejo import Forgejo
from relay.providers.gitea import Gitea
from relay.providers.gogs import Gogs

OLD, NEW = "a" * 40, "b" * 40
SECRET, NEXT_SECRET = "first-secret-é", "second-secret"
BODY = b'{"ref": "refs/heads/main"}'
FAMILY = [(Gitea, "Gitea"), (Forgejo, "Forgejo"), (Forgejo, "Gitea"), (Gogs, "Gogs")]

family = pytest.mark.parametrize(("provider", "brand"), FAMILY)
products = pytest.mark.parametrize("provider", [Gitea, Forgejo, Gogs])


def signature(body: bytes = BODY, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def refusal(provider: type[Gitea], headers: dict[str, str], body: bytes = BODY) -> str:
    with pytest.raises(Unauthorized) as caught:
        provider([SECRET, NEXT_SECRET]).verify(CIMultiDict(headers), body, 0)
    return caught.value.reason


def parse(
    event: str, fields: dict[str, Any], provider: type[Gitea] = Gitea, brand: str = "Gitea"
) -> Push | PullRequest | Ignored:
    headers = CIMultiDict({f"x-{brand}-event": event})
    return provider([SECRET]).parse(headers, json.dumps(fields).encode())


def push_fields(**changes: Any) -> dict[str, Any]:
    author = {"name": "Ada", "email": "ada@example.com", "username": "ada"}
    lists: dict[str, Any] = {"added": ["new"], "modified": ["old"], "removed": []}
    commit = {"id": NEW, "message": "Change", "author": author} | lists
    return {
        "ref": "refs/heads/main",
        "before": OLD,
        "after": NEW,
        "repository": {"full_name": "acme/web"},
        "commits": [commit],
        "total_commits": 1,
        "head_commit": commit,
        "sender": {"login": "bob"},
    } | changes


def push(**changes: Any) -> Push:
    event = parse("push", push_fields(**changes))
    assert isinstance(event, Push)
    return event


def pull_fields(action: str = "opened", **changes: Any) -> dict[str, Any]:
    request = {
        "title": "Better",
        "user": {"login": "ada", "full_name": "Ada", "email": "ada@example.com"},
        "head": {"ref": "topic", "sha": NEW, "repo": {"full_name": "acme/web"}},
        "base": {"ref": "main", "sha": OLD, "repo": {"full_name": "acme/web"}},
    }
    return {
        "action": action,
        "number": 7,
        "pull_request": request | changes,
        "repository": {"full_name": "acme/web"},
        "sender": {"username": "bob"},
    }


def pull(action: str = "opened", **changes: Any) -> PullRequest:
    event = parse("pull_request", pull_fields(action, **changes))
    assert isinstance(event, PullRequest)
    return event


@family
@pytest.mark.parametrize("secret", [SECRET, NEXT_SECRET])
def test_any_configured_secret_may_sign(provider: type[Gitea], brand: str, secret: str) -> None:
    headers = CIMultiDict({f"x-{brand}-signature": signature(secret=secret)})
    provider([SECRET, NEXT_SECRET]).verify(headers, BODY, 0)


@family
def test_another_secret_may_not_and_the_reason_tells_neither(
    provider: type[Gitea], brand: str
) -> None:
    sent = signature(secret="stranger")
    reason = refusal(provider, {f"X-{brand}-Signature": sent})
    assert "no configured secret" in reason
    assert not any(hidden in reason for hidden in (SECRET, NEXT_SECRET, sent))


@products
def test_the_signature_under_githubs_name_is_as_good(provider: type[Gitea]) -> None:
    headers = {"X-Hub-Signature-256": f"sha256={signature()}"}
    provider([SECRET]).verify(CIMultiDict(headers), BODY, 0)
    refusal(provider, headers, b"another body")


def test_a_wrong_signature_is_not_rescued_by_one_under_githubs_name() -> None:
    right = f"sha256={signature()}"
    refusal(Gitea, {"X-Gitea-Signature": "0" * 64, "X-Hub-Signature-256": right})


@products
def test_a_missing_header_is_named(provider: type[Gitea]) -> None:
    assert f"X-{provider.brands[0]}-Signature is missing" in refusal(provider, {})
    digest = hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    refusal(provider, {"X-Hub-Signature": f"sha1={digest}"})


@family
@pytest.mark.parametrize(
    "sent", ["ab", "z" * 64, "é" * 64, "\udcff" * 64, signature()[:-2]], ids=ascii
)
def test_what_is_no_signature_is_refused(provider: type[Gitea], brand: str, sent: str) -> None:
    assert "no configured secret" in refusal(provider, {f"X-{brand}-Signature": sent})


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_byte_is_refused(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    flip = data.draw(st.integers(1, 255))
    tampered = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
    headers = {"X-Gitea-Signature": signature(body)}
    Gitea([SECRET]).verify(CIMultiDict(headers), body, 0)
    refusal(Gitea, headers, tampered)


@products
@pytest.mark.parametrize(
    ("secrets", "tokens"), [([], []), ([" "], []), (["good", ""], []), (["good"], ["whsec_hidden"])]
)
def test_unusable_keys_are_refused(
    provider: type[Gitea], secrets: list[str], tokens: list[str]
) -> None:
    with pytest.raises(ValueError, match="secret") as caught:
        provider(secrets, tokens)
    assert "good" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@family
def test_the_delivery_id(provider: type[Gitea], brand: str) -> None:
    assert provider([SECRET]).delivery_id(CIMultiDict({f"x-{brand}-delivery": "one"})) == "one"
    assert provider([SECRET]).delivery_id(CIMultiDict()) == ""


def test_forgejo_prefers_its_own_names() -> None:
    headers = CIMultiDict({"X-Gitea-Delivery": "old", "X-Forgejo-Delivery": "new"})
    assert Forgejo([SECRET]).delivery_id(headers) == "new"
    assert Gitea([SECRET]).delivery_id(headers) == "old"


@family
def test_a_push(provider: type[Gitea], brand: str) -> None:
    assert parse("push", push_fields(), provider, brand) == Push(
        repo="acme/web",
        ref="refs/heads/main",
        before=OLD,
        after=NEW,
        files=("new", "old"),
        message="Change",
        author=Person("Ada", "ada@example.com", "ada"),
        sender="bob",
    )


def test_a_tag_and_a_branch_without_its_prefix() -> None:
    tag = push(ref="refs/tags/v1", before="0" * 40)
    assert (tag.kind, tag.tag, tag.created) == ("tag", "v1", True)
    assert push(ref="main").ref == "refs/heads/main"


@pytest.mark.parametrize("zeros", ["0" * 40, "0" * 64])
def test_zeros_mean_created_and_deleted(zeros: str) -> None:
    assert push(before=zeros).created
    gone = push(after=zeros)
    assert (gone.kind, gone.deleted, gone.sha) == ("delete", True, OLD)
    tag = parse("push", push_fields(ref="refs/tags/v1", after=zeros))
    assert isinstance(tag, Ignored)
    assert "delete event" in tag.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"before": "0" * 40},
        {"after": "0" * 40},
        {"commits": []},
        {"commits": None, "total_commits": None},
        {"total_commits": 2},
        {"commits": [{"id": NEW, "added": [], "modified": None, "removed": []}]},
    ],
)
def test_files_that_may_be_left_out(changes: dict[str, Any]) -> None:
    assert push().files_complete
    assert push(total_commits=None).files_complete
    assert not push(**changes).files_complete


def test_the_head_commit_may_be_only_in_the_list() -> None:
    assert push(head_commit=None).message == "Change"
    assert push(head_commit=None, after="c" * 40).message == ""


@pytest.mark.parametrize(
    ("ref_type", "ref", "full"),
    [
        ("branch", "topic", "refs/heads/topic"),
        ("branch", "refs/heads/topic", "refs/heads/topic"),
        ("tag", "v1", "refs/tags/v1"),
    ],
)
def test_delete_events(ref_type: str, ref: str, full: str) -> None:
    fields = {"ref": ref, "ref_type": ref_type, "repository": {"full_name": "acme/web"}}
    event = parse("delete", fields | {"sender": {"login": "bob"}})
    assert isinstance(event, Push)
    assert (event.kind, event.ref, event.repo) == ("delete", full, "acme/web")
    assert (event.deleted, event.files_complete, event.sender) == (True, False, "bob")


def test_a_deleted_something_else_is_ignored() -> None:
    fields = {"ref": "x", "ref_type": "note", "repository": {"full_name": "acme/web"}}
    assert parse("delete", fields) == Ignored("a deleted note never deploys")


@pytest.mark.parametrize(
    ("sent", "action"),
    [
        ("opened", "opened"),
        ("reopened", "reopened"),
        ("closed", "closed"),
        ("edited", "edited"),
        ("synchronized", "synchronize"),
        ("synchronize", "synchronize"),
        ("ready_for_review", "ready_for_review"),
        ("label_updated", "labeled"),
        ("label_cleared", "unlabeled"),
    ],
)
def test_actions(sent: str, action: str) -> None:
    assert pull(sent).action == action


@pytest.mark.parametrize("action", ["assigned", "milestoned", "x" * 500])
def test_other_actions_are_ignored_with_a_reason(action: str) -> None:
    event = parse("pull_request", pull_fields(action))
    assert isinstance(event, Ignored)
    assert action[:64] in event.reason
    assert len(event.reason) < 120


@pytest.mark.parametrize("event", ["pull_request", "pull_request_sync", "pull_request_label"])
def test_a_pull_request(event: str) -> None:
    assert parse(event, pull_fields(labels=[{"name": "preview"}])) == PullRequest(
        repo="acme/web",
        number=7,
        action="opened",
        head_sha=NEW,
        head_ref="topic",
        head_repo="acme/web",
        base_ref="main",
        title="Better",
        labels=("preview",),
        author=Person("Ada", "ada@example.com", "ada"),
        sender="bob",
    )


@pytest.mark.parametrize(
    ("title", "field", "draft"),
    [
        ("WIP: Better", None, True),
        ("[wip] Better", None, True),
        ("Draft: Better", None, True),
        ("[Draft] Better", None, True),
        ("Better WIP:", None, False),
        ("WIP: Better", False, False),
        ("Better", True, True),
    ],
)
def test_drafts(title: str, field: bool | None, draft: bool) -> None:
    assert pull(title=title, draft=field).draft == draft


def test_closed_is_not_yet_merged() -> None:
    assert not pull("closed", merged=False).merged
    assert pull("closed", merged=True).merged


@pytest.mark.parametrize(
    ("repo", "name", "fork"),
    [
        (None, "", True),
        ({"full_name": "eve/web"}, "eve/web", True),
        ({"full_name": "Acme/Web"}, "Acme/Web", False),
    ],
)
def test_forks(repo: dict[str, str] | None, name: str, fork: bool) -> None:
    event = pull(head={"ref": "main", "sha": NEW, "repo": repo})
    assert (event.head_repo, event.fork) == (name, fork)


def test_a_pull_request_of_gogs_names_no_commit_and_is_ignored() -> None:
    fields = pull_fields(head=None, base=None, head_branch="topic", base_branch="main")
    event = parse("pull_request", fields, Gogs, "Gogs")
    assert isinstance(event, Ignored)
    assert "head commit" in event.reason


@pytest.mark.parametrize("event", ["create", "issues", "x" * 500])
def test_other_events_are_ignored_with_a_reason(event: str) -> None:
    ignored = parse(event, {})
    assert isinstance(ignored, Ignored)
    assert event[:64] in ignored.reason
    assert len(ignored.reason) < 120


@products
def test_a_missing_event_header_is_malformed(provider: type[Gitea]) -> None:
    with pytest.raises(Malformed, match=f"X-{provider.brands[0]}-Event is missing"):
        provider([SECRET]).parse(CIMultiDict(), b"{}")
