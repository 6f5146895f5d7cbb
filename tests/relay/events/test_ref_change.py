"""What one webhook says about its ref."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events.event import NO_COMMIT, Action, PullRequest, Push
from relay.events.ref_change import ref_change, ref_name, repository_key

A, B = "a" * 40, "b" * 40
TIME = 1_769_860_800.0


def push(before: str, after: str, **more: Any) -> Push:
    deleted = after == NO_COMMIT
    return Push(
        repo="acme/web", ref="refs/heads/main", before=before, after=after, deleted=deleted, **more
    )


def request(action: Action, **more: Any) -> PullRequest:
    return PullRequest(
        repo="acme/web",
        number=12,
        action=action,
        head_sha=A,
        head_ref="topic",
        head_repo="acme/web",
        base_ref="main",
        **more,
    )


@pytest.mark.parametrize(
    ("event", "origin", "value"),
    [
        (push(A, B), A, B),
        (push(NO_COMMIT, B), "", B),
        (push("0" * 64, "b" * 64), "", "b" * 64),
        (push(A, NO_COMMIT), A, ""),
        (push(NO_COMMIT, B, before_told=False), None, B),
        (push(NO_COMMIT, NO_COMMIT, before_told=False), None, ""),
        (push(NO_COMMIT, NO_COMMIT), None, ""),
    ],
    ids=[
        "moved",
        "created",
        "created, SHA-256",
        "deleted",
        "tag of Gitea",
        "deletion of Gitea",
        "deletion that names no commit",
    ],
)
def test_push(event: Push, origin: str | None, value: str) -> None:
    change = ref_change(event, keeps_id=True)
    assert (change.name, change.origin, change.value) == ("refs/heads/main", origin, value)
    assert change.ends == (value == "")
    assert change.keeps_id
    assert not any((change.touch, change.opened, change.moves_head))


@pytest.mark.parametrize(
    ("changed_at", "own_clock", "at", "own"),
    [(TIME, True, TIME, True), (TIME, False, TIME, False), (None, True, None, False)],
)
def test_clock_of_a_push(
    changed_at: float | None, own_clock: bool, at: float | None, own: bool
) -> None:
    change = ref_change(push(A, B, changed_at=changed_at, own_clock=own_clock), keeps_id=False)
    assert (change.at, change.own_clock, change.keeps_id) == (at, own, False)


@pytest.mark.parametrize(
    ("action", "facts", "origin", "value"),
    [
        ("opened", {}, "", f"{A} open"),
        ("reopened", {}, None, f"{A} open"),
        ("closed", {}, None, f"{A} closed"),
        ("closed", {"merged": True}, None, f"{A} closed"),
        ("synchronize", {"before_sha": B}, f"{B} open", f"{A} open"),
        ("synchronize", {}, None, f"{A} open"),
        ("labeled", {}, None, f"{A} open"),
        ("edited", {"before_sha": B}, None, f"{A} open"),
        ("unlabeled", {"merged": True}, None, f"{A} closed"),
        ("ready_for_review", {}, None, f"{A} open"),
    ],
)
def test_pull_request(
    action: Action, facts: dict[str, Any], origin: str | None, value: str
) -> None:
    change = ref_change(request(action, **facts), keeps_id=True)
    assert (change.name, change.origin, change.value) == ("#12", origin, value)
    assert change.touch == (action not in ("opened", "reopened", "closed", "synchronize"))
    assert change.opened == (action == "opened")
    assert change.moves_head == (action == "synchronize")
    assert change.ends == value.endswith("closed")


def test_a_label_on_a_closed_request_names_a_closed_one() -> None:
    assert ref_change(request("labeled", closed=True), keeps_id=True).value == f"{A} closed"
    assert ref_change(request("reopened", closed=True), keeps_id=True).value == f"{A} open"


@pytest.mark.parametrize(
    ("facts", "at"),
    [
        ({"changed_at": TIME, "updated_at": "2020-01-01T00:00:00Z"}, TIME),
        ({"updated_at": "2026-01-31T12:00:00Z"}, TIME),
        ({"updated_at": "2026-01-31T13:00:00+01:00"}, TIME),
        ({"updated_at": "2026-01-31 12:00:00 UTC"}, TIME),
        ({"updated_at": "2026-01-31 14:00:00 +0200"}, TIME),
        ({"updated_at": "2026-01-31 12:00:00"}, None),
        ({"updated_at": "yesterday"}, None),
        ({}, None),
    ],
)
def test_clock_of_a_pull_request(facts: dict[str, Any], at: float | None) -> None:
    change = ref_change(request("edited", **facts), keeps_id=True)
    assert (change.at, change.own_clock) == (at, at is not None)


def test_no_branch_has_the_name_of_a_pull_request() -> None:
    assert ref_name(request("opened")) == "#12"
    assert ref_name(push(A, B)) == "refs/heads/main"


def test_a_repository_keeps_its_key_under_another_name() -> None:
    assert repository_key(push(A, B, repo_id="7"), "hub") == "3:hub:id:7"
    assert repository_key(request("opened", repo_id="7"), "hub") == "3:hub:id:7"
    assert repository_key(push(A, B), "hub") == "3:hub:name:acme/web"


_names = st.text(st.sampled_from("a1:id name"), max_size=8)


@given(_names, _names, st.booleans(), _names, _names, st.booleans())
def test_keys_of_repositories_never_collide(
    server: str, name: str, has_id: bool, server_2: str, name_2: str, has_id_2: bool
) -> None:
    keys = []
    for one_server, one_name, has_one_id in ((server, name, has_id), (server_2, name_2, has_id_2)):
        event = Push(
            repo=one_name,
            ref="refs/heads/main",
            before=A,
            after=B,
            repo_id=one_name if has_one_id else "",
        )
        is_id = has_one_id and bool(one_name)
        keys.append((repository_key(event, one_server), (one_server, is_id, one_name)))
    (key, identity), (key_2, identity_2) = keys
    assert (key == key_2) == (identity == identity_2)
