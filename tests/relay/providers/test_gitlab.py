"""GitLab: tokens, signing tokens, and what its push and merge request hooks become."""

from __future__ import annotations

import base64
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
from relay.providers.gitlab import GitLab, signing_key

OLD, NEW = "a" * 40, "b" * 40
SECRET, NEXT_SECRET = "first-tökén", "second-token"
KEY, NEXT_KEY = bytes(range(32)), bytes(range(32, 64))
NOW = 1_700_000_000
BODY = b'{"object_kind": "push"}'


def whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def v1(body: bytes = BODY, key: bytes = KEY, stamp: str = str(NOW), sent_id: str = "id-1") -> str:
    signed = f"{sent_id}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed(signatures: str, stamp: str = str(NOW), **more: str) -> CIMultiDict[str]:
    names = {"webhook-id": "id-1", "webhook-timestamp": stamp, "webhook-signature": signatures}
    return CIMultiDict(names | {name.replace("_", "-"): value for name, value in more.items()})


def refusal(gitlab: GitLab, headers: CIMultiDict[str], body: bytes = BODY, now: float = NOW) -> str:
    with pytest.raises(Unauthorized) as caught:
        gitlab.verify(headers, body, now)
    return caught.value.reason


def both() -> GitLab:
    return GitLab([SECRET, NEXT_SECRET], [whsec(KEY), whsec(NEXT_KEY)])


def parse(event: str, fields: dict[str, Any]) -> Push | PullRequest | Ignored:
    headers = CIMultiDict({"x-gitlab-event": event})
    return GitLab([SECRET]).parse(headers, json.dumps(fields).encode())


def push_fields(**changes: Any) -> dict[str, Any]:
    author = {"name": "Ada", "email": "ada@example.com"}
    lists: dict[str, Any] = {"added": ["new"], "modified": ["old"], "removed": []}
    return {
        "object_kind": "push",
        "ref": "refs/heads/main",
        "before": OLD,
        "after": NEW,
        "project": {"path_with_namespace": "group/sub/web"},
        "commits": [{"id": NEW, "message": "Change", "author": author} | lists],
        "total_commits_count": 1,
        "user_username": "bob",
    } | changes


def push(**changes: Any) -> Push:
    event = parse("Push Hook", push_fields(**changes))
    assert isinstance(event, Push)
    return event


def merge_fields(changes: dict[str, Any] | None = None, **attributes: Any) -> dict[str, Any]:
    request = {
        "iid": 7,
        "action": "open",
        "title": "Better",
        "source_branch": "topic",
        "target_branch": "main",
        "source_project_id": 1,
        "target_project_id": 1,
        "source": {"path_with_namespace": "group/web"},
        "target": {"path_with_namespace": "group/web"},
        "last_commit": {"id": NEW, "author": {"name": "Ada", "email": "ada@example.com"}},
    }
    return {
        "object_kind": "merge_request",
        "object_attributes": request | attributes,
        "project": {"path_with_namespace": "group/web"},
        "user": {"username": "bob"},
        "labels": [{"title": "preview"}],
        "changes": changes,
    }


def merge_request(changes: dict[str, Any] | None = None, **attributes: Any) -> PullRequest:
    event = parse("Merge Request Hook", merge_fields(changes, **attributes))
    assert isinstance(event, PullRequest)
    return event


@pytest.mark.parametrize("token", [SECRET, NEXT_SECRET])
def test_any_configured_token_is_accepted(token: str) -> None:
    GitLab([SECRET, NEXT_SECRET]).verify(CIMultiDict({"x-gitlab-token": token}), BODY, 0)


@pytest.mark.parametrize("sent", ["", "stranger", SECRET[:-1], SECRET + " ", "\udcff"], ids=ascii)
def test_another_token_is_refused_and_not_told(sent: str) -> None:
    reason = refusal(GitLab([SECRET, NEXT_SECRET]), CIMultiDict({"X-Gitlab-Token": sent}))
    assert "none of the configured" in reason
    assert SECRET not in reason
    assert "stranger" not in reason


def test_a_missing_token_is_named() -> None:
    assert "X-Gitlab-Token is missing" in refusal(GitLab([SECRET]), CIMultiDict())


def test_the_standard_webhooks_example() -> None:
    gitlab = GitLab([], ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    headers = CIMultiDict(
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }
    )
    gitlab.verify(headers, b'{"test": 2432232314}', 1_614_265_330)
    refusal(gitlab, headers, b'{"test": 2432232315}', 1_614_265_330)


@pytest.mark.parametrize("key", [KEY, NEXT_KEY])
def test_any_signing_token_may_sign(key: bytes) -> None:
    both().verify(signed(v1(key=key)), BODY, NOW)


def test_one_right_signature_among_several_is_enough() -> None:
    values = f"v1,!!! v2,{v1()[3:]} {v1(key=b'x' * 32)} v1, {v1()}"
    both().verify(signed(values), BODY, NOW)


def test_a_right_digest_under_an_unknown_version_is_not() -> None:
    refusal(both(), signed(f"v2,{v1()[3:]} {v1()[3:]}"))


@pytest.mark.parametrize(
    "sent", ["", "v1", "v1,", "v1,ab", "v1,é", "v1,\udcff", v1(key=b"x" * 32), v1()[:-5]], ids=ascii
)
def test_a_wrong_signature_is_refused_and_not_rescued_by_a_right_token(sent: str) -> None:
    reason = refusal(both(), signed(sent, x_gitlab_token=SECRET))
    assert "no configured signing token" in reason
    assert not any(hidden in reason for hidden in (SECRET, whsec(KEY), v1(key=b"x" * 32)[3:]))


def test_without_a_signature_the_token_counts_while_both_are_configured() -> None:
    both().verify(CIMultiDict({"X-Gitlab-Token": SECRET}), BODY, NOW)
    reason = refusal(GitLab([], [whsec(KEY)]), CIMultiDict({"X-Gitlab-Token": SECRET}))
    assert "webhook-signature is missing" in reason


def test_without_signing_tokens_a_signature_is_not_looked_at() -> None:
    GitLab([SECRET]).verify(signed("v1,wrong", x_gitlab_token=SECRET), BODY, NOW)
    refusal(GitLab([SECRET]), signed(v1(), x_gitlab_token="stranger"))


@pytest.mark.parametrize("away", [-300, 0, 300])
def test_a_timestamp_within_the_tolerance(away: int) -> None:
    both().verify(signed(v1()), BODY, NOW + away)


@pytest.mark.parametrize("away", [-301, 300.5, 86_400])
def test_a_timestamp_too_old_or_too_new(away: float) -> None:
    assert "away from now" in refusal(both(), signed(v1()), now=NOW + away)


def test_the_tolerance_is_configurable() -> None:
    GitLab([], [whsec(KEY)], tolerance=900).verify(signed(v1()), BODY, NOW + 900)
    assert "61 s away" in refusal(
        GitLab([], [whsec(KEY)], tolerance=60), signed(v1()), now=NOW + 61
    )


@pytest.mark.parametrize("stamp", ["", "soon", "1e9", "-1", "1.5", "٣", "9" * 5000], ids=ascii)
def test_a_signed_timestamp_that_is_no_number(stamp: str) -> None:
    assert "not a number" in refusal(both(), signed(v1(stamp=stamp), stamp))


def test_the_timestamp_and_the_id_are_signed() -> None:
    refusal(both(), signed(v1(), stamp=str(NOW + 1)))
    refusal(both(), signed(v1(sent_id="id-2")))
    refusal(both(), CIMultiDict({"webhook-signature": v1()}))


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_byte_is_refused(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    flip = data.draw(st.integers(1, 255))
    tampered = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
    both().verify(signed(v1(body)), body, NOW)
    refusal(both(), signed(v1(body)), tampered)


@pytest.mark.parametrize(
    ("secrets", "tokens"),
    [
        ([], []),
        ([" "], []),
        (["good", ""], []),
        ([], ["whsec_"]),
        ([], ["whsec_!!hidden!!"]),
        ([], [whsec(b"hidden")]),
        ([], [base64.b64encode(KEY).decode()]),
        (["good"], [whsec(KEY), "hidden"]),
    ],
)
def test_unusable_keys_are_refused_and_not_told(secrets: list[str], tokens: list[str]) -> None:
    with pytest.raises(ValueError, match=r"secret|signing token") as caught:
        GitLab(secrets, tokens)
    hidden = [
        "good",
        "hidden",
        base64.b64encode(KEY).decode(),
        base64.b64encode(b"hidden").decode(),
    ]
    assert not any(word in str(caught.value) for word in hidden)


def test_the_shortest_signing_key() -> None:
    assert signing_key(whsec(b"k" * 16)) == b"k" * 16
    with pytest.raises(ValueError, match="16 bytes"):
        signing_key(whsec(b"k" * 15))


def test_the_delivery_id() -> None:
    gitlab = GitLab([SECRET])
    assert gitlab.delivery_id(CIMultiDict({"idempotency-key": "a", "webhook-id": "b"})) == "a"
    assert gitlab.delivery_id(CIMultiDict({"webhook-id": "b"})) == "b"
    assert gitlab.delivery_id(CIMultiDict()) == ""


def test_the_delivery_id_of_a_signed_request_is_the_signed_one() -> None:
    forged = signed(v1(), Idempotency_Key="forged")
    both().verify(forged, BODY, NOW)
    assert both().delivery_id(forged) == "id-1"
    assert both().verify(forged, BODY, NOW) == both().verify(signed(v1()), BODY, NOW)
    unsigned = CIMultiDict({"X-Gitlab-Token": SECRET, "Idempotency-Key": "a", "webhook-id": "b"})
    assert both().delivery_id(unsigned) == "a"
    assert GitLab([SECRET]).delivery_id(forged) == "forged"


def test_a_signed_request_with_an_empty_id_has_no_id() -> None:
    headers = signed(v1(sent_id=""), Idempotency_Key="forged")
    headers["webhook-id"] = ""
    both().verify(headers, BODY, NOW)
    assert both().delivery_id(headers) == ""


def test_a_push() -> None:
    assert push() == Push(
        repo="group/sub/web",
        ref="refs/heads/main",
        before=OLD,
        after=NEW,
        files=("new", "old"),
        message="Change",
        author=Person("Ada", "ada@example.com"),
        sender="bob",
    )


@pytest.mark.parametrize("zeros", ["0" * 40, "0" * 64])
def test_zeros_mean_created_and_deleted(zeros: str) -> None:
    created, deleted = push(before=zeros), push(after=zeros, commits=[], total_commits_count=0)
    assert (created.created, created.kind, created.files_complete) == (True, "push", False)
    assert (deleted.deleted, deleted.kind, deleted.sha) == (True, "delete", OLD)


@pytest.mark.parametrize(
    "changes",
    [
        {"commits": [], "total_commits_count": 0},
        {"commits": None},
        {"total_commits_count": 2},
        {"total_commits_count": None},
        {"commits": [{"id": NEW, "added": None, "modified": [], "removed": []}]},
    ],
)
def test_files_that_may_be_left_out(changes: dict[str, Any]) -> None:
    assert push().files_complete
    assert not push(**changes).files_complete


def test_the_head_commit_is_found_by_its_id() -> None:
    commits = [{"id": NEW, "message": "Head"}, {"id": OLD, "message": "Other"}]
    assert push(commits=commits).message == "Head"
    assert push(commits=commits[1:]).message == ""


def test_a_tag() -> None:
    event = parse("Tag Push Hook", push_fields(ref="refs/tags/v1", before="0" * 40))
    assert isinstance(event, Push)
    assert (event.kind, event.tag) == ("tag", "v1")


@pytest.mark.parametrize("project", [None, {}])
def test_a_push_without_its_project_is_malformed(project: dict[str, str] | None) -> None:
    with pytest.raises(Malformed, match="path_with_namespace"):
        push(project=project)


def test_a_merge_request() -> None:
    assert merge_request() == PullRequest(
        repo="group/web",
        number=7,
        action="opened",
        head_sha=NEW,
        head_ref="topic",
        head_repo="group/web",
        base_ref="main",
        title="Better",
        labels=("preview",),
        author=Person("Ada", "ada@example.com"),
        sender="bob",
        repo_id="1",
    )


READY = {"draft": {"previous": True, "current": False}}
TITLE = {"title": {"previous": "Draft: Better", "current": "Better"}}


@pytest.mark.parametrize(
    ("attributes", "changes", "action"),
    [
        ({"action": "open"}, {}, "opened"),
        ({"action": "reopen"}, {}, "reopened"),
        ({"action": "close"}, {}, "closed"),
        ({"action": "merge"}, {}, "closed"),
        ({"action": "update", "oldrev": OLD}, {}, "synchronize"),
        ({"action": "update", "oldrev": OLD}, READY, "synchronize"),
        ({"action": "update"}, READY, "ready_for_review"),
        ({"action": "update"}, READY | TITLE, "ready_for_review"),
        ({"action": "update"}, READY | {"labels": {"previous": [], "current": []}}, "edited"),
        ({"action": "update"}, READY | {"description": {"current": "x"}}, "edited"),
        ({"action": "update"}, {"labels": {"previous": [], "current": []}}, "edited"),
        ({"action": "update"}, {"description": {"current": "x"}}, "edited"),
        ({"action": "update"}, None, "edited"),
    ],
)
def test_actions(attributes: dict[str, str], changes: dict[str, Any] | None, action: str) -> None:
    event = merge_request(changes, **attributes)
    assert event.action == action
    assert event.merged == (attributes["action"] == "merge")


@pytest.mark.parametrize("action", ["approved", "unapproval", None])
def test_other_actions_are_ignored_with_a_reason(action: str | None) -> None:
    event = parse("Merge Request Hook", merge_fields(action=action))
    assert isinstance(event, Ignored)
    assert (action or "none") in event.reason


@pytest.mark.parametrize("field", ["draft", "work_in_progress"])
def test_drafts(field: str) -> None:
    assert merge_request(None, **{field: True}).draft
    assert not merge_request(None, **{field: False}).draft


@pytest.mark.parametrize(
    ("attributes", "head_repo"),
    [
        ({"source_project_id": 2, "source": {"path_with_namespace": "eve/web"}}, "eve/web"),
        ({"source_project_id": None, "source": None}, ""),
        ({"source_project_id": None, "target_project_id": None, "source": None}, ""),
        ({"source_project_id": None, "target_project_id": None}, "group/web"),
    ],
)
def test_forks(attributes: dict[str, Any], head_repo: str) -> None:
    event = merge_request(**attributes)
    assert (event.fork, event.head_repo) == (True, head_repo)
    assert not merge_request().fork


@pytest.mark.parametrize("missing", ["last_commit", "project"])
def test_a_merge_request_without_its_commit_or_project_is_malformed(missing: str) -> None:
    fields = merge_fields(
        **({"last_commit": None} if missing == "last_commit" else {"target": None})
    )
    if missing == "project":
        fields["project"] = None
    with pytest.raises(Malformed, match="missing"):
        parse("Merge Request Hook", fields)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (push_fields(event_name="push"), "push"),
        (push_fields(object_kind=None, event_name="push"), "push"),
        (push_fields(object_kind="tag_push", ref="refs/tags/v1"), "tag"),
        (merge_fields(), "pull_request"),
    ],
)
def test_system_hooks(fields: dict[str, Any], kind: str) -> None:
    event = parse("System Hook", fields)
    assert not isinstance(event, Ignored)
    assert event.kind == kind


@pytest.mark.parametrize(
    ("event", "fields", "word"),
    [
        ("Pipeline Hook", {}, "Pipeline"),
        ("System Hook", {"event_name": "user_create"}, "user_create"),
        ("System Hook", {}, "System Hook"),
    ],
)
def test_other_events_are_ignored_with_a_reason(
    event: str, fields: dict[str, Any], word: str
) -> None:
    ignored = parse(event, fields)
    assert isinstance(ignored, Ignored)
    assert word in ignored.reason


def test_a_missing_event_header_is_malformed() -> None:
    with pytest.raises(Malformed, match="X-Gitlab-Event"):
        GitLab([SECRET]).parse(CIMultiDict(), BODY)


def test_the_fingerprint_is_of_the_body_alone() -> None:
    """A push names no time: the same move of the same branch has the same body, day after day. The
    history of the ref tells them apart, and not whoever may change an unsigned header."""
    provider = GitLab([SECRET])

    def fingerprint(**ids: str) -> str:
        names = {name.replace("_", "-"): value for name, value in ids.items()}
        return provider.verify(CIMultiDict({"X-Gitlab-Token": SECRET} | names), BODY, NOW)

    assert fingerprint(Idempotency_Key="1") == fingerprint(webhook_id="2") == fingerprint()
