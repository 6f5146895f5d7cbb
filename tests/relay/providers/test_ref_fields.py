"""What the history of a ref needs of each provider's payloads: the repository's id, where the ref
stood before, and the clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.events.event import NO_COMMIT, PullRequest, Push
from relay.providers import PROVIDERS
from relay.providers.detect import event_header
from relay.samples import sample

OLD, NEW = "a" * 40, "b" * 40
AT, SECONDS = "2026-01-31T12:00:00Z", 1_769_860_800
NAMES = ("github", "gitlab", "gitea", "forgejo", "gogs")
FAMILY = ("gitea", "forgejo", "gogs")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Text with lone surrogates is not JSON; it fails wherever it stands.
    | st.text(max_size=70).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)
every_provider = pytest.mark.parametrize("provider", PROVIDERS)
family = pytest.mark.parametrize("provider", FAMILY)


def parse(provider: str, event: str, fields: dict[str, Any] | bytes) -> Push | PullRequest:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    headers = CIMultiDict(event_header(provider, body, event))
    parsed = PROVIDERS[provider](["secret"]).parse(headers, body)
    assert isinstance(parsed, Push | PullRequest)
    return parsed


def push(provider: str, *, tag: bool = False, **fields: Any) -> Push:
    """A push whose repository has these fields; ``before`` and ``after`` are the push's."""
    body = sample(provider, "tag" if tag else "push", sha=NEW) | {"before": OLD}
    body |= {key: fields.pop(key) for key in ("before", "after", "project_id") if key in fields}
    repository = body["project" if provider == "gitlab" else "repository"]
    # A sample brings a time of its own.
    repository.pop("pushed_at", None)
    repository |= fields
    event = "push" if provider != "gitlab" else "Tag Push Hook" if tag else "Push Hook"
    parsed = parse(provider, event, body)
    assert isinstance(parsed, Push)
    return parsed


def deletion(provider: str, ref_type: str = "branch", **fields: Any) -> Push:
    repository = {"full_name": "acme/web", "id": 42, "updated_at": AT}
    body = {"ref": "old", "ref_type": ref_type, "repository": repository} | fields
    parsed = parse(provider, "delete", body)
    assert isinstance(parsed, Push)
    return parsed


def pull(provider: str, action: str, repo: Any = 42, **fields: Any) -> PullRequest:
    """A pull request with these fields; ``before`` is the event's."""
    body = sample(provider, "pull_request", sha=NEW)
    if provider == "gitlab":
        body["object_attributes"] |= {"action": action, **fields}
        body["project"]["id"] = repo
        parsed = parse(provider, "Merge Request Hook", body)
    else:
        body |= {"action": action} | {k: fields.pop(k) for k in ("before",) if k in fields}
        body["pull_request"] |= fields
        body["repository"]["id"] = repo
        parsed = parse(provider, "pull_request", body)
    assert isinstance(parsed, PullRequest)
    return parsed


@every_provider
@pytest.mark.parametrize("tag", [False, True])
@pytest.mark.parametrize("after", [NEW, NO_COMMIT])
def test_pushes_tags_and_deletions_name_the_repository(
    provider: str, tag: bool, after: str
) -> None:
    if tag and after == NO_COMMIT and provider in FAMILY:
        return  # The delete event says it.
    assert push(provider, tag=tag, after=after, id=42).repo_id == "42"


@every_provider
def test_pull_requests_name_the_repository(provider: str) -> None:
    assert pull(provider, "open" if provider == "gitlab" else "opened").repo_id == "42"


@every_provider
def test_a_repository_without_an_id(provider: str) -> None:
    fields: dict[str, Any] = {"project_id": None} if provider == "gitlab" else {}
    assert push(provider, id=None, **fields).repo_id == ""


def test_gitlab_names_its_project_in_more_than_one_place() -> None:
    assert push("gitlab", id=42, project_id=43).repo_id == "42"
    assert push("gitlab", id=None, project_id=43).repo_id == "43"
    ids = {"source_project_id": 7, "target_project_id": 43}
    assert pull("gitlab", "open", None, **ids).repo_id == "43"
    assert pull("gitlab", "open", 42, **ids).repo_id == "42"


@every_provider
@pytest.mark.parametrize("kind", ["push", "tag", "pull_request"])
def test_samples_of_two_repositories_have_two_ids(provider: str, kind: str) -> None:
    def repo_id(repo: str) -> str:
        body = json.dumps(sample(provider, kind, repo=repo)).encode()
        parsed = PROVIDERS[provider](["secret"]).parse(event_header(provider, body, None), body)
        assert isinstance(parsed, Push | PullRequest)
        return parsed.repo_id

    assert repo_id("acme/web") == repo_id("Acme/Web") != repo_id("acme/api")
    assert repo_id("acme/web")


@pytest.mark.parametrize("text", ["{0b9c7f3e-4c1d-4a58-9a63-2f1f0c5d7e11}", "prj_4.2:a-B", "7"])
def test_an_id_may_be_a_short_text(text: str) -> None:
    assert push("github", id=text).repo_id == text


@pytest.mark.parametrize(
    "raw",
    [
        *("0", "-1", str(2**63), "1" * 5_000, "1.0", "1e3", "1e999", "true", "null", "[1]", "{}"),
        *('""', '"a b"', '"a/b"', '"ä"', '"a\\n"', '"\\u0000"', f'"{"a" * 65}"'),
    ],
    ids=lambda raw: raw[:12],
)
def test_what_is_no_id(raw: str) -> None:
    body = json.dumps(sample("github", "push", sha=NEW) | {"repository": {"full_name": "a/b"}})
    body = body.replace('"full_name": "a/b"', f'"full_name": "a/b", "id": {raw}')
    assert parse("github", "push", body.encode()).repo_id == ""


@every_provider
@given(value=JSON)
@example(value=2**63 - 1)
@example(value=2**63)
@example(value="1" * 64)
@example(value="1" * 65)
def test_an_id_of_any_type_is_bounded_and_no_error(provider: str, value: Any) -> None:
    action = "open" if provider == "gitlab" else "opened"
    ids = {"source_project_id": value, "target_project_id": value} if provider == "gitlab" else {}
    more: dict[str, Any] = {"project_id": value} if provider == "gitlab" else {}
    for repo_id in (
        push(provider, id=value, **more).repo_id,
        pull(provider, action, value, **ids).repo_id,
    ):
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
            assert repo_id == str(value)
        else:
            assert repo_id in ("", value)
        assert len(repo_id) <= 64


@pytest.mark.parametrize("pushed_at", [SECONDS, AT])
@pytest.mark.parametrize("tag", [False, True])
@pytest.mark.parametrize("after", [NEW, NO_COMMIT])
def test_github_sends_the_time_of_the_push(pushed_at: int | str, tag: bool, after: str) -> None:
    event = push("github", tag=tag, after=after, pushed_at=pushed_at, updated_at=1)
    assert (event.changed_at, event.own_clock, event.before_told) == (SECONDS, True, True)


@pytest.mark.parametrize("fields", [{"pushed_at": None}, {"pushed_at": "soon"}])
def test_github_without_the_time_of_the_push(fields: dict[str, Any]) -> None:
    event = push("github", updated_at=AT, **fields)
    assert (event.changed_at, event.own_clock) == (None, False)


def test_gitlab_pushes_have_no_clock() -> None:
    event = push("gitlab", updated_at=AT, pushed_at=SECONDS)
    assert (event.changed_at, event.own_clock, event.before_told) == (None, False, True)


@family
@pytest.mark.parametrize("tag", [False, True])
def test_gitea_sends_the_time_of_the_change_before(provider: str, tag: bool) -> None:
    event = push(provider, tag=tag, updated_at="2026-01-31T13:00:00+01:00", pushed_at=1)
    assert (event.changed_at, event.own_clock) == (SECONDS, False)
    unset = push(provider, tag=tag, updated_at="0001-01-01T00:00:00Z")
    assert (unset.changed_at, unset.own_clock) == (None, False)


@family
def test_gitea_tells_where_a_branch_stood(provider: str) -> None:
    assert push(provider).before_told
    assert push(provider, before=NO_COMMIT).before_told
    assert push(provider, before="0" * 64).before_told
    assert push(provider, after=NO_COMMIT).before_told


@family
@pytest.mark.parametrize("zeros", [NO_COMMIT, "0" * 64, ""])
def test_gitea_does_not_tell_where_a_tag_stood(provider: str, zeros: str) -> None:
    assert not push(provider, tag=True, before=zeros).before_told


@family
def test_gitea_tells_where_a_tag_of_a_mirror_stood(provider: str) -> None:
    event = push(provider, tag=True)
    assert (event.before, event.before_told) == (OLD, True)


@family
def test_gogs_leaves_out_both_commits_of_a_mirrored_tag(provider: str) -> None:
    assert not push(provider, before="", after="").before_told


@family
@pytest.mark.parametrize("ref_type", ["branch", "tag"])
def test_gitea_does_not_tell_where_a_deleted_ref_stood(provider: str, ref_type: str) -> None:
    event = deletion(provider, ref_type)
    assert (event.before_told, event.before, event.after) == (False, NO_COMMIT, NO_COMMIT)
    assert (event.repo_id, event.changed_at, event.own_clock) == ("42", SECONDS, False)
    assert not deletion(provider, ref_type, sha=NO_COMMIT).before_told
    assert deletion(provider, ref_type, sha=OLD).before_told


@pytest.mark.parametrize("provider", ["github", "gitlab"])
@pytest.mark.parametrize("tag", [False, True])
@pytest.mark.parametrize(("before", "after"), [(OLD, NEW), (NO_COMMIT, NEW), (OLD, NO_COMMIT)])
def test_the_others_always_tell_where_a_ref_stood(
    provider: str, tag: bool, before: str, after: str
) -> None:
    event = push(provider, tag=tag, before=before, after=after)
    assert (event.before, event.after, event.before_told) == (before, after, True)


@pytest.mark.parametrize("provider", ["github", "gitea", "forgejo", "gitlab"])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [(AT, SECONDS), ("2026-01-31 12:00:00 UTC", SECONDS), ("soon", None), ("", None)],
)
def test_pull_requests_have_a_clock(provider: str, text: str, seconds: float | None) -> None:
    event = pull(provider, "open" if provider == "gitlab" else "opened", updated_at=text)
    assert (event.updated_at, event.changed_at) == (text, seconds)


@pytest.mark.parametrize(
    ("provider", "action", "fields", "before_sha"),
    [
        ("github", "synchronize", {"before": OLD}, OLD),
        ("github", "synchronize", {"before": NO_COMMIT}, ""),
        ("github", "synchronize", {"before": "a" * 65}, ""),
        ("github", "synchronize", {"before": None}, ""),
        ("github", "synchronize", {}, ""),
        ("github", "opened", {"before": OLD}, ""),
        ("gitlab", "update", {"oldrev": OLD}, OLD),
        ("gitlab", "update", {"oldrev": NO_COMMIT}, ""),
        ("gitlab", "update", {}, ""),
        ("gitlab", "open", {"oldrev": OLD}, ""),
        ("gitea", "synchronized", {"before": OLD}, ""),
        ("forgejo", "synchronized", {"before": OLD}, ""),
    ],
)
def test_where_the_head_of_a_pull_request_stood(
    provider: str, action: str, fields: dict[str, Any], before_sha: str
) -> None:
    event = pull(provider, action, **fields)
    assert (event.before_sha, event.head_sha) == (before_sha, NEW)


@every_provider
@given(value=JSON)
def test_a_time_of_any_type_is_a_time_or_none_and_no_error(provider: str, value: Any) -> None:
    moved = push(provider, pushed_at=value, updated_at=value)
    action = "open" if provider == "gitlab" else "opened"
    asked = pull(provider, action, updated_at=value)
    for seconds in (moved.changed_at, asked.changed_at):
        assert seconds is None or seconds > 0
    assert moved.own_clock == (provider == "github" and moved.changed_at is not None)
    assert len(asked.updated_at) <= 64


@pytest.mark.parametrize(
    ("provider", "keeps"),
    [("github", True), ("gitlab", True), ("gitea", False), ("forgejo", False), ("gogs", True)],
)
def test_whether_a_redelivery_keeps_its_id(provider: str, keeps: bool) -> None:
    assert PROVIDERS[provider].keeps_delivery_id is keeps


@pytest.mark.parametrize(
    ("provider", "place", "words"),
    [
        ("github", "pull_request", {"open": False, "closed": True}),
        ("gitea", "pull_request", {"open": False, "closed": True}),
        ("forgejo", "pull_request", {"open": False, "closed": True}),
        ("gitlab", "object_attributes", {"opened": False, "closed": True, "merged": True}),
    ],
)
def test_a_pull_request_says_whether_it_is_closed(
    provider: str, place: str, words: dict[str, bool]
) -> None:
    event = "Merge Request Hook" if provider == "gitlab" else "pull_request"
    for word, closed in words.items():
        body = sample(provider, "pull_request", sha=NEW)
        body[place]["state"] = word
        parsed = parse(provider, event, body)
        assert isinstance(parsed, PullRequest)
        assert parsed.closed is closed
