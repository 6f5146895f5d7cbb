"""Which routes an event takes, and the reason for each that it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import Route
from relay.events.event import Event, Person, PullRequest, Push
from relay.routing import RouteDecision, Router

SHA = "2" * 40


def push(**fields: Any) -> Push:
    known: dict[str, Any] = {
        "repo": "acme/web",
        "ref": "refs/heads/main",
        "before": "1" * 40,
        "after": SHA,
        "files": ("apps/web/a.ts",),
        "author": Person("Ann", "ann@example.com", "ann"),
    }
    return Push(**(known | fields))


def pull(**fields: Any) -> PullRequest:
    known: dict[str, Any] = {
        "repo": "acme/web",
        "number": 1,
        "action": "opened",
        "head_sha": SHA,
        "head_ref": "topic",
        "head_repo": "acme/web",
        "base_ref": "main",
    }
    return PullRequest(**(known | fields))


def route(**keys: Any) -> Route:
    return Route.model_validate(
        {"name": "r", "repo": "acme/web", "on": "push", "deploy": "t"} | keys
    )


TAG = {"ref": "refs/tags/v1"}
NOTES = {"ref": "refs/notes/commits"}
GONE = {"deleted": True, "after": "0" * 40}


def matching(router: Router, event: Event, source: str) -> list[RouteDecision]:
    return [decision for decision in router.candidates(event, source) if decision.matched]


@pytest.mark.parametrize(
    ("keys", "event", "reason"),
    [
        ({}, push(), ""),
        ({}, push(repo="ACME/Web"), ""),
        ({"repo": "acme/*"}, push(), ""),
        ({"repo": "re:acme/(web|api)"}, push(), ""),
        ({"repo": "acme/api"}, push(), "repo acme/web does not match acme/api"),
        ({"repo": "acme/s"}, push(repo="acme/\u017f"), "repo acme/\u017f does not match acme/s"),
        ({"on": "tag"}, push(), "on is tag, this is a push"),
        ({}, push(**GONE), "on is push, this is a delete"),
        ({"on": "delete"}, push(**GONE), ""),
        ({"on": "delete", "branches": "main"}, push(**TAG, **GONE), "a deleted tag"),
        ({"on": "delete", "tags": "v*"}, push(**GONE), "a deleted branch"),
        ({"sources": "gitlab"}, push(), "source 'github' is not one of gitlab"),
        ({"branches": "release/*"}, push(), "branch 'main' does not match"),
        ({"on": ["push", "tag"], "branches": "main"}, push(**TAG), ""),
        ({"on": "tag", "tags": "w*"}, push(**TAG), "tag 'v1' does not match"),
        ({"branches": "**"}, push(**NOTES), "'refs/notes/commits' is neither a branch nor a tag"),
        ({"tags": "!v*"}, push(**NOTES), "'refs/notes/commits' is neither a branch nor a tag"),
        ({"on": "delete", "branches": "**"}, push(**NOTES, **GONE), "'refs/notes/commits' is"),
        ({}, push(**NOTES), ""),
        ({"paths": ["apps/**"]}, push(), ""),
        ({"paths": ["docs/**"]}, push(), "no changed file matches paths: docs/**"),
        ({"messages": "release*"}, push(message="fix"), "the head commit's message"),
        ({}, push(message="x [Skip Deploy]"), "the head commit says [skip deploy]"),
        ({"authors": "ann@*"}, push(), ""),
        ({"authors": ["!ann"]}, push(), "author"),
        ({"on": "pull_request"}, pull(), ""),
        ({"on": "pull_request"}, pull(action="labeled"), "action labeled is not one of"),
        ({"on": "pull_request"}, pull(action="edited"), "action edited is not one of"),
        ({"on": "pull_request"}, pull(fork=True), "from a fork"),
        ({"on": "pull_request", "forks": True}, pull(fork=True), ""),
        ({"on": "pull_request"}, pull(draft=True), "a draft"),
        ({"on": "pull_request", "drafts": True}, pull(draft=True), ""),
        ({"on": "pull_request", "base_branches": "next"}, pull(), "base 'main'"),
        ({"on": "pull_request", "branches": "feature/*"}, pull(), "branch 'topic'"),
        ({"on": "pull_request", "labels": "deploy"}, pull(), "labels (none)"),
        ({"on": "pull_request", "labels": "!wip"}, pull(), ""),
        ({"on": "pull_request", "labels": "!wip"}, pull(labels=("wip", "a")), "labels wip, a"),
        ({"on": "pull_request"}, pull(title="[skip deploy] x"), "the title says"),
    ],
)
def test_decision(keys: dict[str, Any], event: Event, reason: str) -> None:
    [decision] = Router([route(**keys)]).decide(event, "github")

    assert decision.matched is (reason == "")
    assert decision.reason.startswith(reason or "all conditions hold")


@pytest.mark.parametrize(
    ("event", "unknown"),
    [
        (push(files=("x",), files_complete=False), True),
        (push(files_complete=False), False),
        (pull(), True),
    ],
)
def test_incomplete_lists_of_files_pass(event: Event, unknown: bool) -> None:
    router = Router([route(on=["push", "pull_request"], paths=["apps/**"])])

    [match] = matching(router, event, "github")

    assert match.paths_unknown is unknown


def test_order_of_the_file_is_kept() -> None:
    names = ["a", "b", "c", "d"]
    repos = ["acme/web", "acme/*", "acme/web", "re:.*"]
    router = Router([route(name=n, repo=r) for n, r in zip(names, repos, strict=True)])

    assert [match.route.name for match in matching(router, push(), "github")] == names


REPOS = st.sampled_from(["acme/web", "acme/*", "acme/api", "re:acme/w.*", "!acme/web", "**"])
ROUTES = st.lists(
    st.builds(
        lambda repo, on, branches: route(repo=repo, on=on, branches=branches),
        REPOS,
        st.sampled_from(["push", "pull_request", "delete"]),
        st.sampled_from(["main", "topic", "re*"]),
    ),
    max_size=8,
)
EVENTS = st.sampled_from([push(), push(**GONE), push(repo="acme/api"), pull(), pull(fork=True)])


@given(ROUTES, EVENTS)
def test_matching_and_explaining_agree(routes: list[Route], event: Event) -> None:
    router = Router(routes)

    assert matching(router, event, "s") == [d for d in router.decide(event, "s") if d.matched]


@given(ROUTES, EVENTS)
def test_routes_of_other_repositories_change_nothing(routes: list[Route], event: Event) -> None:
    others = [route(repo=f"other/{number}") for number in range(5)]

    assert matching(Router(others + routes), event, "s") == matching(Router(routes), event, "s")


def test_files_are_read_where_a_route_filters_by_them() -> None:
    router = Router(
        [
            route(name="plain"),
            route(name="filtered", repo="acme/api", paths="src/**"),
            route(name="pattern", repo="docs/*", paths="**/*.md"),
        ]
    )
    assert [router.reads_files(r) for r in ("acme/web", "ACME/api", "docs/site", "x/y")] == [
        False,
        True,
        True,
        False,
    ]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "repo": st.sampled_from(["acme/web", "acme/*", "re:acme/.*", "other/*"]),
                "branches": st.sampled_from(["main", "release/*", "!main"]),
                "paths": st.sampled_from(["src/**", "!docs/**", "a"]),
            }
        ),
        max_size=5,
    ),
    st.sampled_from([push(), push(ref="refs/heads/release/1"), push(files=("a", "docs/b"))]),
)
def test_wants_is_whether_any_candidate_matches(routes: list[dict[str, str]], event: Push) -> None:
    router = Router([route(name=str(n), **keys) for n, keys in enumerate(routes)])
    matched = [decision.matched for decision in router.candidates(event, "github")]
    assert router.wants(event, "github") == any(matched)
