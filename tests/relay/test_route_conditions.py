"""Whether the conditions of targets hold for a pull request: what decides about another turn."""

from __future__ import annotations

from typing import Any

import pytest

from config.model import Route
from relay.events.event import Action, PullRequest
from relay.routing import Router
from tests.relay.test_routing import push

ROUTES = (
    {"name": "labeled", "labels": "preview", "deploy": ["preview"]},
    {"name": "based", "base_branches": "release/*", "deploy": ["staging"], "sources": "github"},
    {"name": "drafts", "drafts": True, "deploy": ["always"]},
    {"name": "either", "labels": ["a"], "deploy": ["both"]},
    {"name": "or", "labels": ["b"], "drafts": True, "deploy": ["both"]},
    {"name": "pushes", "on": "push", "deploy": ["pushed"]},
    {"name": "elsewhere", "repo": "acme/other", "deploy": ["other"]},
)


def router() -> Router:
    defaults = {"repo": "acme/web", "on": "pull_request"}
    return Router(Route.model_validate({**defaults, **keys}) for keys in ROUTES)


def request(action: Action = "labeled", **keys: Any) -> PullRequest:
    fields: dict[str, Any] = {
        "repo": "acme/web",
        "number": 5,
        "action": action,
        "head_sha": "1" * 40,
        "head_ref": "topic",
        "head_repo": "acme/web",
        "base_ref": "main",
        **keys,
    }
    return PullRequest(**fields)


@pytest.mark.parametrize(
    ("keys", "holding"),
    [
        ({}, {"always"}),
        ({"labels": ("preview",)}, {"always", "preview"}),
        ({"labels": ("preview",), "draft": True}, {"always"}),
        ({"base_ref": "release/1"}, {"always", "staging"}),
        ({"labels": ("a",)}, {"always", "both"}),
        ({"labels": ("a",), "draft": True}, {"always"}),
        ({"labels": ("b",), "draft": True}, {"always", "both"}),
        # What the event is about besides does not count.
        ({"labels": ("preview",), "action": "edited"}, {"always", "preview"}),
        ({"labels": ("preview",), "fork": True, "head_repo": "x/web"}, {"always", "preview"}),
    ],
)
def test_conditions_of_a_pull_request(keys: dict[str, Any], holding: set[str]) -> None:
    conditions = router().conditions(request(**keys), "github")

    assert conditions.keys() == {"preview", "staging", "always", "both"}
    assert {target for target, holds in conditions.items() if holds} == holding


def test_routes_of_other_sources_do_not_count() -> None:
    assert "staging" not in router().conditions(request(), "mirror")


def test_other_events_have_no_conditions() -> None:
    assert router().conditions(push(), "github") == {}
